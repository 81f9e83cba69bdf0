"""Becomes a program of a container: enter.py ROOT UID:GID FOLDER PROGRAM ARGUMENT...

Only its own folders can be written to, as with `read_only`; it has no capabilities.
"""

import os
import sys

root, user, folder, *command = sys.argv[1:]
uid, gid = map(int, user.split(":"))
os.chroot(root)
os.chdir(folder)
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
os.umask(0o022)
os.execvpe(command[0], command, os.environ)
