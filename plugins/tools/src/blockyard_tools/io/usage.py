# SPDX-License-Identifier: Apache-2.0
"""What ``--help`` prints."""

__all__ = ["HELP"]

HELP = """\
Usage: qemu-io [OPTIONS]... [-c STRING]... [file]
Send single requests to disk images

  --object OBJECTDEF   make an object, for example a 'secret' that holds
                       a password or a key
  --image-opts         the file is a string of options
  -c, --cmd STRING     carry out this command; may be given several times
  -f, --format FMT     driver of the image; looked for if not given
  -r, --read-only      do not write
  -s, --snapshot       write to a temporary overlay
  -n, --nocache        past the host's cache, short for -t none
  -C, --copy-on-read   keep what is read from the backing file
  -m, --misalign       use memory that is not aligned for O_DIRECT
  -k, --native-aio     native AIO, short for -i native
  -i, --aio=MODE       threads, native or io_uring
  -t, --cache=MODE     none, writeback, unsafe, directsync or writethrough
  -d, --discard=MODE   ignore (off) or unmap (on)
  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]
                       what to trace, and where to
  -U, --force-share    while others write to the image
  -h, --help           show this and exit
  -V, --version        show the version and exit

See 'qemu-io -c help' for the commands.
"""
