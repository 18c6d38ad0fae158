"""What any file system does, asked of the directory given as argument (as root): one JSON line a check.

Python, since Node cannot do half of these calls: mmap, xattrs, O_TMPFILE, renameat2, other ids.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import stat
import subprocess
import sys
import traceback

libc = ctypes.CDLL(None, use_errno=True)
checks = []


def check(title):
    def add(function):
        checks.append((title, function))
        return function

    return add


def expect(actual, wanted):
    if actual != wanted:
        raise AssertionError(f"{actual!r} instead of {wanted!r}")


def error_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
        return None
    except OSError as error:
        return errno.errorcode[error.errno]


def make(name, content=b"", mode=0o644):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(fd, content)
    os.close(fd)


def read(name):
    with open(name, "rb") as file:
        return file.read()


def mode_of(name):
    return stat.S_IMODE(os.stat(name).st_mode)


def as_user(uid, gid, groups, call, *args):
    """Calls as somebody else, in a child; the name of the error or None."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            call(*args)
        except OSError as error:
            code = error.errno
        except BaseException:
            traceback.print_exc()
            code = 255
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return errno.errorcode.get(code, code) if code else None


def renameat2(old, new, flags):
    if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@check("a written file has its size at once and reads back")
def _():
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"hello")
    expect(os.fstat(fd).st_size, 5)
    expect(os.stat("f").st_size, 5)
    expect(os.pread(fd, 9, 0), b"hello")
    os.close(fd)


@check("an unlinked open file is read, written and truncated")
def _():
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"hello")
    os.unlink("f")
    expect(os.fstat(fd).st_nlink, 0)
    os.write(fd, b"!")
    expect(os.pread(fd, 9, 0), b"hello!")
    os.ftruncate(fd, 2)
    expect(os.fstat(fd).st_size, 2)
    expect(os.path.exists("f"), False)
    os.close(fd)


@check("rename over an open file leaves its reader the old content")
def _():
    make("a", b"one")
    make("b", b"two")
    with open("b", "rb") as old:
        os.rename("a", "b")
        expect(old.read(), b"two")
    expect(read("b"), b"one")
    expect(os.path.exists("a"), False)


@check("rename with NOREPLACE and EXCHANGE")
def _():
    make("a", b"1")
    make("b", b"2")
    renameat2("a", "b", 2)
    expect((read("a"), read("b")), (b"2", b"1"))
    expect(error_of(renameat2, "a", "b", 1), "EEXIST")
    renameat2("a", "c", 1)
    expect(read("c"), b"2")


@check("directories move with what is in them")
def _():
    os.makedirs("d/e")
    make("d/e/f", b"x")
    os.rename("d", "g")
    expect(read("g/e/f"), b"x")
    expect(error_of(os.rename, "g", "g/e/h"), "EINVAL")
    expect(error_of(os.rmdir, "g"), "ENOTEMPTY")


@check("link counts follow link and unlink")
def _():
    make("a", b"x")
    os.link("a", "b")
    expect(os.stat("a").st_nlink, 2)
    expect(os.stat("a").st_ino, os.stat("b").st_ino)
    os.unlink("a")
    expect(os.stat("b").st_nlink, 1)
    os.mkdir("d")
    os.mkdir("d/e")
    expect(os.stat("d").st_nlink, 3)


@check("O_EXCL refuses what exists, O_CREAT opens it")
def _():
    make("f", b"x")
    expect(error_of(os.open, "f", os.O_CREAT | os.O_EXCL), "EEXIST")
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    expect(os.read(fd, 9), b"x")
    os.close(fd)


@check("O_APPEND writes go to the end, two writers' too")
def _():
    make("f", b"0")
    one = os.open("f", os.O_WRONLY | os.O_APPEND)
    two = os.open("f", os.O_WRONLY | os.O_APPEND)
    for text in (b"1", b"3", b"5"):
        os.write(one, text)
        os.write(two, bytes([text[0] + 1]))
    os.close(one)
    os.close(two)
    expect(read("f"), b"0123456")


@check("O_APPEND set by fcntl on an open handle holds")
def _():
    make("f", b"012345")
    fd = os.open("f", os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    os.write(fd, b"6")
    os.close(fd)
    expect(read("f"), b"0123456")


@check("O_TRUNC and truncate change the size, truncate grows with zeros")
def _():
    make("f", b"content")
    os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
    expect(os.stat("f").st_size, 0)
    os.truncate("f", 5)
    expect(read("f"), b"\0" * 5)


@check("O_DIRECT reads and writes")
def _():
    page = mmap.mmap(-1, 4096)
    page[:] = b"q" * 4096
    fd = os.open("f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    expect(os.write(fd, page), 4096)
    page[:] = b"-" * 4096
    expect(os.preadv(fd, [page], 0), 4096)
    expect(page[:], b"q" * 4096)
    os.close(fd)
    expect(read("f"), b"q" * 4096)


@check("stores through a shared mapping reach the file, also after close; private ones do not")
def _():
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 8192)
    private = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE)
    private[0:3] = b"zzz"
    shared = mmap.mmap(fd, 8192)
    shared[4096:4100] = b"abcd"
    shared.flush()
    expect(os.pread(fd, 4, 4096), b"abcd")
    expect(os.pread(fd, 3, 0), b"\0\0\0")
    os.close(fd)
    shared[5000:5004] = b"late"
    shared.flush()
    shared.close()
    expect(read("f")[5000:5004], b"late")


@check("programs run, and are busy for writers while they do")
def _():
    subprocess.run(["cp", "/bin/sleep", "p"], check=True)
    expect(subprocess.run(["./p", "0"]).returncode, 0)
    running = subprocess.Popen(["./p", "60"])
    expect(error_of(os.open, "p", os.O_WRONLY), "ETXTBSY")
    running.kill()
    running.wait()


@check("a directory of 10,000 entries is listed whole, each once, while entries come and go")
def _():
    os.mkdir("d")
    for i in range(10000):
        os.close(os.open(f"d/f{i:05}", os.O_CREAT | os.O_WRONLY))
    expect(len(os.listdir("d")), 10000)
    entries = os.scandir("d")
    seen = [next(entries).name for _ in range(100)]
    for i in range(0, 10000, 2):
        os.unlink(f"d/f{i:05}")
    for i in range(100):
        os.close(os.open(f"d/g{i:05}", os.O_CREAT | os.O_WRONLY))
    # A whole listing in between: the kernel may now have a newer idea of the directory than the reader above.
    expect(len(os.listdir("d")), 5100)
    seen += [entry.name for entry in entries]
    expect(len(seen), len(set(seen)))
    missing = {f"f{i:05}" for i in range(1, 10000, 2)} - set(seen)
    expect(missing, set())
    subprocess.run(["rm", "-rf", "d"], check=True)


@check("a reader comes back to a position of a directory that has changed")
def _():
    os.mkdir("d")
    for i in range(2000):
        make(f"d/{i:04}")
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    handle = ctypes.c_void_p(libc.opendir(b"d"))

    def name():
        entry = libc.readdir(handle)
        return ctypes.string_at(entry + 19) if entry else None

    for _i in range(1000):
        name()
    position = libc.telldir(handle)
    rest = []
    while (entry := name()) is not None:
        rest.append(entry)
    os.unlink(b"d/" + rest[0])
    libc.seekdir(handle, ctypes.c_long(position))
    again = []
    while (entry := name()) is not None:
        again.append(entry)
    libc.closedir(handle)
    expect([entry for entry in again if entry != rest[0]], rest[1:])


@check("the root lists itself as . and ..")
def _():
    libc.opendir.restype = ctypes.c_void_p
    root = os.open("..", os.O_RDONLY)
    names = subprocess.run(["ls", "-ai", "."], capture_output=True, text=True, check=True, cwd="..").stdout
    numbers = {line.split()[1]: int(line.split()[0]) for line in names.splitlines()}
    expect(numbers["."], os.fstat(root).st_ino)
    os.close(root)


@check("names: 255 bytes, not 256; any byte but / and NUL; case and blanks matter")
def _():
    make("n" * 255)
    expect(error_of(make, "n" * 256), "ENAMETOOLONG")
    for name in (b"bad\xff\xfe", b"new\nline", b" ", b"-", b"A", b"a", "ä€😀".encode()):
        make(name, name)
        expect(read(name), name)
    expect(set(os.listdir(b".")) >= {b"bad\xff\xfe", b"new\nline", b" ", b"A", b"a"}, True)


@check("extended attributes: set, list, replace, remove, sizes")
def _():
    make("f")
    os.setxattr("f", "user.a", b"v" * 1000)
    expect(os.getxattr("f", "user.a"), b"v" * 1000)
    expect(os.listxattr("f"), ["user.a"])
    expect(error_of(os.setxattr, "f", "user.a", b"", os.XATTR_CREATE), "EEXIST")
    expect(error_of(os.setxattr, "f", "user.b", b"", os.XATTR_REPLACE), "ENODATA")
    os.removexattr("f", "user.a")
    expect(error_of(os.getxattr, "f", "user.a"), "ENODATA")
    expect(error_of(os.removexattr, "f", "user.a"), "ENODATA")


@check("extended attributes of a symlink are its own")
def _():
    make("f")
    os.symlink("f", "l")
    os.setxattr("l", "trusted.x", b"1", follow_symlinks=False)
    expect(os.getxattr("l", "trusted.x", follow_symlinks=False), b"1")
    expect(error_of(os.getxattr, "f", "trusted.x"), "ENODATA")
    expect(error_of(os.setxattr, "l", "user.x", b"1", follow_symlinks=False), "EPERM")


@check("trusted attributes are listed for root only")
def _():
    make("f")
    os.setxattr("f", "trusted.x", b"1")
    os.setxattr("f", "user.y", b"1")
    expect(sorted(os.listxattr("f")), ["trusted.x", "user.y"])
    expect(as_user(99, 99, [], lambda: expect(os.listxattr("f"), ["user.y"])), None)


@check("attributes of HSM cannot be set, removed or listed, and nobody is told so")
def _():
    make("f")
    for name in ("trusted.hsm", "user.hsm", "trusted.lustrite", "user.lustrite", "trusted.lhsm_uuid", "user.hsm.state"):
        os.setxattr("f", name, b"\1" * 24)
        os.removexattr("f", name)
    expect(os.listxattr("f"), [])
    for name in ("trusted.lustrite", "user.lustrite", "user.lustrite.socket", "user.hsm", "user.hsm.blob"):
        expect(error_of(os.getxattr, "f", name), "ENODATA")


@check("the FID is an attribute of files, directories and symlinks, by name only")
def _():
    make("f")
    os.symlink("f", "l")
    os.link("f", "g")
    fids = [os.getxattr(name, "system.lustrite.fid", follow_symlinks=False) for name in ("f", "g", "l", ".")]
    expect([len(fid) for fid in fids], [16] * 4)
    expect(fids[0], fids[1])
    expect(len(set(fids)), 3)
    expect(os.listxattr("f"), [])


@check("creations belong to their caller, under the caller's umask")
def _():
    os.chmod(".", 0o777)

    def create():
        os.umask(0o027)
        make("f", mode=0o666)
        os.mkdir("d")
        os.symlink("f", "l")
        os.mkfifo("p", 0o666)

    expect(as_user(1234, 2345, [], create), None)
    for name, mode in (("f", 0o640), ("d", 0o750), ("p", 0o640)):
        status = os.lstat(name)
        expect((name, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)), (name, 1234, 2345, mode))
    expect(os.lstat("l").st_uid, 1234)


@check("permissions are checked against the caller's ids and supplementary groups")
def _():
    make("f", b"x", 0o640)
    os.chown("f", 1234, 2345)
    expect(as_user(99, 99, [], read, "f"), "EACCES")
    expect(as_user(99, 99, [2345], read, "f"), None)
    expect(as_user(99, 99, [2345], os.truncate, "f", 0), "EACCES")
    expect(as_user(99, 99, [2345], os.chmod, "f", 0o777), "EPERM")
    os.mkdir("d", 0o700)
    make("d/f")
    expect(as_user(99, 99, [], os.stat, "d/f"), "EACCES")
    os.mkdir("w")
    os.chown("w", 0, 555)
    os.chmod("w", 0o775)
    expect(as_user(99, 99, [], make, "w/f"), "EACCES")
    expect(as_user(99, 99, [555], make, "w/f"), None)


@check("setgid directories hand on their group")
def _():
    os.mkdir("d")
    os.chown("d", 0, 777)
    os.chmod("d", 0o2777)

    def create():
        os.umask(0)
        os.mkdir("d/e")
        make("d/other", mode=0o2775)

    expect(as_user(1234, 2345, [], create), None)
    expect((os.stat("d/e").st_gid, mode_of("d/e") & 0o2000), (777, 0o2000))
    expect((os.stat("d/other").st_gid, mode_of("d/other")), (777, 0o775))
    expect(as_user(1234, 2345, [777], lambda: (os.umask(0), make("d/member", mode=0o2775))), None)
    expect((os.stat("d/member").st_gid, mode_of("d/member")), (777, 0o2775))


@check("in a sticky directory only owners remove and rename")
def _():
    os.mkdir("d")
    os.chmod("d", 0o1777)
    make("d/f")
    expect(as_user(1234, 2345, [], os.unlink, "d/f"), "EPERM")
    expect(as_user(1234, 2345, [], os.rename, "d/f", "d/g"), "EPERM")
    os.chown("d/f", 1234, 2345)
    expect(as_user(1234, 2345, [], os.unlink, "d/f"), None)


@check("setuid and setgid go at a write, a truncate and a chown by somebody else")
def _():
    def overwrite():
        fd = os.open("f", os.O_WRONLY)
        os.write(fd, b"y")
        os.close(fd)

    make("f", b"x")
    for change in (overwrite, lambda: os.truncate("f", 0), lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))):
        os.chmod("f", 0o6777)
        expect(as_user(1234, 2345, [], change), None)
        expect(oct(mode_of("f")), oct(0o777))
    os.chmod("f", 0o6777)
    os.chown("f", 5, 5)
    expect(oct(mode_of("f")), oct(0o777))
    os.chmod("f", 0o6777)
    overwrite()
    expect(oct(mode_of("f")), oct(0o6777))


@check("setuid and setgid go whatever somebody else writes with, also when they come while he has the file open")
def _():
    def fallocate(mode):
        def call(fd):
            if libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(4096)) != 0:
                raise OSError(ctypes.get_errno(), "fallocate")

        return call

    def splice(fd):
        pipe = os.pipe()
        os.write(pipe[1], b"y")
        os.splice(pipe[0], fd, 1)

    writers = {
        "write": lambda fd: os.write(fd, b"y"),
        "pwrite": lambda fd: os.pwrite(fd, b"y", 10),
        "splice": splice,
        "ftruncate": lambda fd: os.ftruncate(fd, 5),
        "truncate": lambda fd: os.truncate("f", 5),
        "fallocate": fallocate(0),
        "punch": fallocate(3),
        "copy_file_range": lambda fd: os.copy_file_range(source, fd, 100, 0, 0),
    }
    make("source", b"s" * 4096)
    source = os.open("source", os.O_RDONLY)
    for name, change in writers.items():
        for late in (False, True):
            for uid, wanted in ((1234, 0o777), (0, 0o6777)):
                make("f", b"x" * 8192)
                os.chmod("f", 0o777 if late else 0o6777)
                fd = os.open("f", os.O_RDWR)
                os.chmod("f", 0o6777)
                expect(as_user(uid, uid, [], change, fd), None)
                expect((name, late, uid, oct(mode_of("f"))), (name, late, uid, oct(wanted)))
                os.close(fd)
    os.close(source)
    make("f", b"x")
    os.chmod("f", 0o6777)
    os.chown("f", -1, -1)
    expect(oct(mode_of("f")), oct(0o777))


@check("file capabilities go at a write")
def _():
    make("f", b"x", 0o755)
    os.setxattr("f", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    fd = os.open("f", os.O_WRONLY)
    os.write(fd, b"y")
    os.close(fd)
    expect(error_of(os.getxattr, "f", "security.capability"), "ENODATA")


@check("POSIX ACLs decide, are inherited, and change the mode")
def _():
    make("f", b"x", 0o600)
    subprocess.run(["setfacl", "-m", "u:99:r", "f"], check=True)
    expect(as_user(99, 99, [], read, "f"), None)
    expect(as_user(98, 98, [], read, "f"), "EACCES")
    expect(oct(mode_of("f")), oct(0o640))
    subprocess.run(["setfacl", "-b", "f"], check=True)
    expect(as_user(99, 99, [], read, "f"), "EACCES")
    os.mkdir("d")
    subprocess.run(["setfacl", "-d", "-m", "u:99:rwx,g::rwx,o::---", "d"], check=True)
    os.umask(0o077)
    make("d/f", mode=0o666)
    os.umask(0o022)
    # A default ACL takes the place of the umask.
    expect(oct(mode_of("d/f")), oct(0o660))
    expect("user:99:rwx" in subprocess.run(["getfacl", "d/f"], capture_output=True, text=True).stdout, True)


@check("times are set to the nanosecond, each alone, on symlinks too; ctime and mtime follow changes")
def _():
    make("f")
    os.utime("f", ns=(5_000_000_001, 6_000_000_002))
    status = os.stat("f")
    expect((status.st_atime_ns, status.st_mtime_ns), (5_000_000_001, 6_000_000_002))
    subprocess.run(["touch", "-m", "-d", "@7", "f"], check=True)
    status = os.stat("f")
    expect((status.st_atime_ns, status.st_mtime_ns), (5_000_000_001, 7_000_000_000))
    os.symlink("f", "l")
    os.utime("l", ns=(1, 2), follow_symlinks=False)
    expect((os.lstat("l").st_mtime_ns, os.stat("l").st_mtime_ns), (2, 7_000_000_000))
    before = os.stat("f").st_ctime_ns
    os.chmod("f", 0o600)
    expect(os.stat("f").st_ctime_ns > before, True)
    with open("f", "ab") as file:
        file.write(b"x")
    expect(os.stat("f").st_mtime_ns > 7_000_000_000, True)


@check("a read moves the access time, one with O_NOATIME does not")
def _():
    for flags, moves in ((os.O_NOATIME, False), (os.O_NOATIME | os.O_RDWR, False), (0, True)):
        make("f", b"x" * 10000)
        os.utime("f", (1000, 2000))
        fd = os.open("f", flags)
        expect(len(os.read(fd, 10000)), 10000)
        os.close(fd)
        expect((flags, os.stat("f").st_atime > 1000), (flags, moves))


@check("owners of symlinks change without their target")
def _():
    make("f")
    os.symlink("f", "l")
    os.lchown("l", 7, 8)
    expect((os.lstat("l").st_uid, os.stat("f").st_uid), (7, os.getuid()))
    expect(os.readlink("l"), "f")
    os.symlink("t" * 4095, "long")
    expect(os.readlink("long"), "t" * 4095)


@check("fifos, sockets and device nodes are made; devices do not work")
def _():
    os.mkfifo("p")
    expect(stat.S_ISFIFO(os.stat("p").st_mode), True)
    os.mknod("n", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    expect(os.stat("n").st_rdev, os.makedev(1, 3))
    expect(error_of(os.open, "n", os.O_RDONLY), "EACCES")
    os.mknod("big", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    expect(os.stat("big").st_rdev, os.makedev(259, 70000))


@check("fallocate, holes, SEEK_DATA and SEEK_HOLE")
def _():
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.posix_fallocate(fd, 0, 100000)
    expect(os.fstat(fd).st_size, 100000)
    expect(libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(65536)), 0)
    sparse = os.open("g", os.O_CREAT | os.O_RDWR)
    os.pwrite(sparse, b"d", 1 << 20)
    expect(os.lseek(sparse, 0, os.SEEK_DATA), 1 << 20)
    expect(os.lseek(sparse, 0, os.SEEK_HOLE), 0)
    expect(error_of(os.lseek, sparse, 2 << 20, os.SEEK_DATA), "ENXIO")
    expect(os.fstat(sparse).st_blocks < 100, True)
    os.close(fd)
    os.close(sparse)


@check("copy_file_range copies between files and the result is there at once")
def _():
    content = os.urandom(300_000)
    make("f", content)
    source = os.open("f", os.O_RDONLY)
    target = os.open("g", os.O_CREAT | os.O_RDWR)
    done = 0
    while done < len(content):
        count = os.copy_file_range(source, target, len(content) - done, done, done)
        expect(count > 0, True)
        done += count
    expect(os.fstat(target).st_size, len(content))
    os.close(source)
    os.close(target)
    expect(read("g"), content)


@check("an O_TMPFILE has no name until it is linked")
def _():
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"tmp")
    expect(os.listdir("."), [])
    expect(libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"t", 0x400), 0)
    os.close(fd)
    expect(read("t"), b"tmp")


@check("fsync and fdatasync of files and directories")
def _():
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    directory = os.open(".", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.sync()


@check("locks of both kinds exclude other processes")
def _():
    make("f")
    record = os.open("f", os.O_RDWR)
    fcntl.lockf(record, fcntl.LOCK_EX)
    whole = os.open("f", os.O_RDWR)
    fcntl.flock(whole, fcntl.LOCK_EX)

    def lock(how):
        fd = os.open("f", os.O_RDWR)
        how(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    expect(as_user(0, 0, [], lock, fcntl.lockf), "EAGAIN")
    expect(as_user(0, 0, [], lock, fcntl.flock), "EAGAIN")
    os.close(record)
    os.close(whole)


@check("statfs shows the space of the store and names of 255 bytes")
def _():
    status = os.statvfs(".")
    expect((status.f_namemax, status.f_blocks > 0, status.f_bavail <= status.f_bfree), (255, True, True))


@check("ioctls: the state of files, ENOTTY for directories and unknown numbers")
def _():
    make("f")
    fd = os.open("f", os.O_RDONLY)
    state = bytearray(32)
    fcntl.ioctl(fd, 0x802066D3, state)
    expect(bytes(state[:8]), bytes(8))
    fcntl.ioctl(fd, 0x801866DC, bytearray(24))
    expect(error_of(fcntl.ioctl, fd, 0x1234), "ENOTTY")
    os.close(fd)
    directory = os.open(".", os.O_RDONLY)
    for number, size in ((0x802066D3, 32), (0x801866DC, 24), (0x401866D4, 24)):
        expect(error_of(fcntl.ioctl, directory, number, bytearray(size)), "ENOTTY")
    os.close(directory)


@check("an open, a write and a stat of a missing parent fail as they should")
def _():
    expect(error_of(os.open, "no/f", os.O_CREAT), "ENOENT")
    make("f")
    expect(error_of(os.open, "f/g", os.O_CREAT), "ENOTDIR")
    expect(error_of(os.open, ".", os.O_WRONLY), "EISDIR")
    expect(error_of(os.unlink, "."), "EISDIR")
    expect(error_of(os.rmdir, "f"), "ENOTDIR")
    os.symlink("loop", "loop")
    expect(error_of(os.open, "loop", os.O_RDONLY), "ELOOP")


def main():
    os.chdir(sys.argv[1])
    os.umask(0o022)
    for number, (title, function) in enumerate(checks):
        folder = f"check-{number}"
        os.mkdir(folder)
        os.chdir(folder)
        line = {"title": title}
        try:
            function()
        except BaseException:
            line["detail"] = traceback.format_exc()
        os.chdir("..")
        print(json.dumps(line), flush=True)


main()
