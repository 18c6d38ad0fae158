# The operations of test/crash/hsm-fsx.test.ts, for helpers/application.ts: each on a descriptor, as an application does
# it, and answered with the size of the file afterwards. Content comes from a name, so that no data is passed about.
import base64, ctypes, errno, hashlib, mmap, os

libc = ctypes.CDLL(None, use_errno=True)
held = {}
last = b''


def content(name, length):
    return hashlib.shake_128(name.encode()).digest(length)


def open_by(names, ino, flags):
    """The file has one of these names; another file may have them, too."""
    for name in names:
        try:
            if os.stat(name).st_ino != ino:
                continue
            fd = os.open(name, flags)
        except FileNotFoundError:
            continue
        try:
            found = os.fstat(fd).st_ino
        except BaseException:
            os.close(fd)
            raise
        if found == ino:
            return fd
        os.close(fd)
    raise FileNotFoundError(errno.ENOENT, f'{names} are not {ino}')


def step(names, ino, flags, hold, operation, *args):
    """One operation; with `hold` the descriptor is kept for later ones, and one that was kept is used."""
    fd = held.get(flags) if hold else None
    if fd is None:
        fd = open_by(names, ino, flags)
    try:
        found = operations[operation](fd, *args)
        size = os.fstat(fd).st_size
    except BaseException:
        held.pop(flags, None)
        os.close(fd)
        raise
    if hold:
        held[flags] = fd
    else:
        os.close(fd)
    return [size, found]


def drop():
    """Closes what is held; whatever that answers under a dead daemon."""
    for fd in held.values():
        try:
            os.close(fd)
        except OSError:
            pass
    held.clear()


def seen(data):
    global last
    last = data
    return hashlib.sha1(data).hexdigest()


def read(fd, at, length):
    data = b''
    while part := os.pread(fd, length - len(data), at + len(data)):
        data += part
        if len(data) == length:
            break
    return seen(data)


def put(fd, data, at):
    while data:
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done


def write(fd, at, name, length):
    put(fd, content(name, length), at)


def append(fd, name, length):
    data = content(name, length)
    while data:
        data = data[os.write(fd, data):]


def map_read(fd, at, length):
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
        return seen(mapped[at:at + length])


def map_write(fd, at, name, length, flush):
    with mmap.mmap(fd, 0) as mapped:
        mapped[at:at + length] = content(name, length)
        if flush:
            mapped.flush()


def punch(fd, at, length):
    # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    if libc.fallocate(fd, 3, ctypes.c_long(at), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), 'fallocate')


def copy_range(source, fd, at, to, length):
    while length > 0:
        done = os.copy_file_range(source, fd, length, at, to)
        if done == 0:
            raise RuntimeError(f'copy_file_range: {length} bytes are missing at {at}')
        at, to, length = at + done, to + done, length - done


def copy_in(fd, path, at, to, length):
    source = os.open(path, os.O_RDONLY)
    try:
        copy_range(source, fd, at, to, length)
    finally:
        os.close(source)


operations = {
    'read': read,
    'write': write,
    'append': append,
    'mapRead': map_read,
    'mapWrite': map_write,
    'truncate': os.ftruncate,
    'punch': punch,
    'allocate': os.posix_fallocate,
    'copy': lambda fd, at, to, length: copy_range(fd, fd, at, to, length),
    'copyIn': copy_in,
    'rewrite': lambda fd, name, length: put(fd, content(name, length), 0),
    'fsync': os.fsync,
}
