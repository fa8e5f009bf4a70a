# SPDX-License-Identifier: Apache-2.0
"""What ``--help`` and ``--version`` print."""

__all__ = ["help_text", "version_text"]

_HELP = """\
Usage: {program} [OPTIONS] FILE
  or:  {program} -L [OPTIONS]
  or:  {program} -d DEVICE

Serve one disk image over NBD, with the command line of qemu-nbd.  The program ends when
its last client has gone, or with -t, when SIGINT, SIGTERM or SIGHUP ends it; what
clients were told is written is in the image then.

  -h, --help                display this help and exit
  -V, --version             output version information and exit

Connection properties:
  -p, --port=PORT           port to listen on (default `10809')
  -b, --bind=IFACE          interface to bind to (default `0.0.0.0')
  -k, --socket=PATH         path to the unix socket
                            (default '/var/lock/qemu-nbd-DEVICE')
  -e, --shared=NUM          device can be shared by NUM clients (default '1'),
                            0 for any number
  -t, --persistent          don't exit on the last connection
  -v, --verbose             display extra debugging information
  -x, --export-name=NAME    expose export by name (default is empty string)
  -D, --description=TEXT    export a human-readable description
      --handshake-limit=N   limit client's handshake to N seconds (default 10)

Exposing part of the image:
  -o, --offset=OFFSET       offset into the image, in bytes
  -A, --allocation-depth    expose the allocation depth
  -B, --bitmap=NAME         expose a persistent dirty bitmap; may be given again

General purpose options:
  -L, --list                list exports available from another NBD server
  --object type,id=ID,...   define an object such as 'secret' for providing
                            passwords and/or encryption keys
  --tls-creds=ID            use id of an earlier --object to provide TLS
  --tls-authz=ID            use id of an earlier --object to provide
                            authorization
  --tls-hostname=HOSTNAME   override hostname used to check x509 certificate
  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]
                            say what is going on at trace points; 'help' lists them
  --fork                    fork off the server process and exit the parent
                            once the server is running
  --pid-file=PATH           store the server's process ID in the given file
  --selinux-label=LABEL     set SELinux process label on listening socket

Kernel NBD client support (the kernel module is nbd):
  -c, --connect=DEV         connect FILE to the local NBD device DEV, in the
                            background unless there is -v; with -e, by several
                            connections, one for each processor at most
  -d, --disconnect          disconnect the specified device

Block device options:
  -f, --format=FORMAT       set image format (raw, qcow2, ...); without it the
                            image is probed
  -r, --read-only           export read-only
  -s, --snapshot            use FILE as an external snapshot, create a temporary
                            file with backing_file=FILE, redirect the write to
                            the temporary one
  -l, --load-snapshot=SNAPSHOT_PARAM
                            load an internal snapshot inside FILE and export it
                            as an read-only device, SNAPSHOT_PARAM format is
                            'snapshot.id=[ID],snapshot.name=[NAME]', or
                            '[ID_OR_NAME]'
  -n, --nocache             disable host cache
      --cache=MODE          set cache mode used to access the disk image, the
                            valid options are: 'none', 'writeback' (default),
                            'writethrough', 'directsync' and 'unsafe'
      --aio=MODE            set AIO mode (native, io_uring or threads)
      --discard=MODE        set discard mode (ignore, unmap)
      --detect-zeroes=MODE  set detect-zeroes mode (off, on, unmap)
      --image-opts          treat FILE as a full set of image options

A socket that was passed as systemd passes it (LISTEN_FDS) is served as it is.

Examples:
  {program} -t -e 5 -k /run/disk.sock -f qcow2 disk.qcow2
  {program} --fork -r -x disk -p 10809 -f raw disk.img
  {program} -c /dev/nbd0 -f qcow2 disk.qcow2    then: mount /dev/nbd0p1 /mnt
  {program} -d /dev/nbd0
  {program} -L -b example.org
"""


def help_text(program: str) -> str:
    """What ``--help`` prints."""
    return _HELP.format(program=program)


def version_text(program: str) -> str:
    """What ``--version`` prints."""
    from blockyard.qmp.version import INTERFACE, package_version

    number = ".".join(map(str, INTERFACE))
    return f"{program} {number} (Blockyard {package_version()})\n"
