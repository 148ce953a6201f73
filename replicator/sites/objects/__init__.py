"""Object stores: directories and S3-compatible buckets, both behind `ports.ObjectStore`.

`local` and `s3` are imported by whoever opens such a site; aiobotocore is loaded only with `s3`.
"""
