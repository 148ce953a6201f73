"""Moves the payload of large blobs over sockets in threads: facts in, bytes or an exception of the system out.

`recv_into`, TLS and `send` release the interpreter's lock, so a MiB costs the event loop a few calls and all cores are
used. Nothing here decides: which host, which credentials, how long to wait and what an answer means are the callers'.
"""
