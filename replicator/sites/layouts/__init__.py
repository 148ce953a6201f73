"""The two ways in which an object store or a directory keeps images, over `ports.ObjectStore`."""
