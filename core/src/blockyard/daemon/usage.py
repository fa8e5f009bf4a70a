# SPDX-License-Identifier: Apache-2.0
"""The daemon's options, and what ``--help`` and ``--version`` print."""

from blockyard.qmp.version import INTERFACE, package_version

__all__ = ["LONG", "SHORT", "help_text", "version_text"]

#: Long options, and whether they take an argument.
LONG = {
    "blockdev": True,
    "chardev": True,
    "daemonize": False,
    "export": True,
    "help": False,
    "monitor": True,
    "nbd-server": True,
    "object": True,
    "pidfile": True,
    "trace": True,
    "version": False,
}
#: Short options, and the long ones that they stand for.
SHORT = {"h": "help", "T": "trace", "V": "version"}

_HELP = """\
Usage: {program} [options]
Blockyard's storage daemon

  -h, --help             display this help and exit
  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]
                         say what is going on at trace points;
                         'help' lists them
  -V, --version          output version information and exit

  --blockdev [driver=]<driver>[,node-name=<N>][,discard=ignore|unmap]
             [,cache.direct=on|off][,cache.no-flush=on|off]
             [,read-only=on|off][,auto-read-only=on|off]
             [,force-share=on|off][,detect-zeroes=on|off|unmap]
             [,active=on|off][,driver specific parameters...]
                         open an image as a block node

  --chardev <kind>,id=<id>[,<property>=<value>...]
                         make a character device: socket, stdio, file, pipe,
                         pty, null or ringbuf; 'help' lists the kinds

  --daemonize            go into the background; the parent exits once
                         everything is set up, or has failed

  --export [type=]<type>,id=<id>,node-name=<node-name>
           [,writable=on|off][,writethrough=on|off][,iothread=<id>]
           [,type specific parameters...]
                         make a block node available to clients;
                         nbd takes name=<export-name> and
                         description=<text>, and requires --nbd-server

  --monitor [chardev=]<name>[,mode=control][,pretty[=on|off]][,id=<id>]
                         speak QMP on a character device

  --nbd-server addr.type=inet,addr.host=<host>,addr.port=<port>
               [,tls-creds=<id>][,tls-authz=<id>][,max-connections=<n>]
               [,handshake-max-seconds=<n>]
  --nbd-server addr.type=unix,addr.path=<path>[,...]
  --nbd-server addr.type=fd,addr.str=<fd>[,...]
                         start the NBD server for exports of type nbd

  --object help          list the types of objects that can be made
  --object <type>,help   list the properties of a type
  --object <type>,id=<id>[,<property>=<value>...]
                         make an object, for example an iothread

  --pidfile <path>       write the process id to a file, locked for as long
                         as the daemon lives, when everything is set up

Arguments are key=value,... with dots for nested members, or JSON, for
example --blockdev '{{"driver": "null-co", "node-name": "n0"}}'.  Options
are applied in the order in which they are given.

Sockets passed in LISTEN_FDS become the NBD server, and the monitor if
LISTEN_FDNAMES calls one 'qmp', unless options say otherwise; they can be
named as addr.str=<name> as well.  READY=1 is sent to NOTIFY_SOCKET.
"""


def help_text(program: str) -> str:
    """What ``--help`` prints."""
    return _HELP.format(program=program)


def version_text(program: str) -> str:
    """What ``--version`` prints."""
    major, minor, _ = INTERFACE
    return (
        f"{program} version {package_version()} (Blockyard)\n"
        f"with the interface of qemu-storage-daemon {major}.{minor}\n"
    )
