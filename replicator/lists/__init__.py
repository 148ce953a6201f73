"""Image lists: files that name images, from Rancher's text files to Helm output, and what they name.

`files` reads them, `reading` says how, `references` makes images of what they mention, `sites` finds their sites.
"""
