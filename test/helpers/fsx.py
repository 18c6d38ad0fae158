# The operations of test/crash/hsm-fsx.test.ts, for helpers/application.ts: each on a descriptor, as an application does
# it, and answered with the size of the file afterwards. Content comes from a name, so that no data is passed about.
import base64, ctypes, errno, hashlib, mmap, os

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.msync.argtypes = libc.munmap.argtypes + [ctypes.c_int]
held = {}
# Address and length of a mapping that is kept. Not of the module mmap, which keeps a descriptor with it.
kept = None
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


def step(names, ino, flags, how, operation, *args):
    """
    One operation. With 'hold' the descriptor is kept for later ones, and one that was kept is used; with 'rewind' the
    file has its old times again afterwards. What is done with a mapping that is kept opens nothing.
    """
    if operation in mapped:
        return [None, mapped[operation](*args)]
    hold = 'hold' in how
    fd = held.get(flags) if hold else None
    if fd is None:
        fd = open_by(names, ino, flags)
    try:
        before = os.fstat(fd)
        found = operations[operation](fd, *args)
        if 'rewind' in how:
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        size = os.fstat(fd).st_size
    except BaseException:
        if hold:
            held.pop(flags, None)
        os.close(fd)
        raise
    if hold:
        held[flags] = fd
    else:
        os.close(fd)
    return [size, found]


def drop():
    """Closes and unmaps what is held; whatever that answers under a dead daemon."""
    global kept
    if kept is not None:
        libc.munmap(*kept)
        kept = None
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


def keep(fd):
    """Maps the file until drop(); the descriptor may be closed meanwhile. The length that is mapped."""
    global kept
    if kept is None:
        length = os.fstat(fd).st_size
        address = libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), 'mmap')
        kept = address, length
    return kept[1]


def kept_read(at, length):
    return seen(ctypes.string_at(kept[0] + at, length))


def kept_write(at, name, length):
    ctypes.memmove(kept[0] + at, content(name, length), length)


def kept_sync():
    if libc.msync(*kept, 4) != 0:  # MS_SYNC
        raise OSError(ctypes.get_errno(), 'msync')


def data_ranges(fd):
    """Where lseek finds data; the rest is holes."""
    ranges, at = [], 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return ranges
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        ranges.append([start, at])


def fallocate(fd, mode, at, length):
    # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE is 3, FALLOC_FL_ZERO_RANGE 16
    if libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length)) != 0:
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
    'keep': keep,
    'dataRanges': data_ranges,
    'punch': lambda fd, at, length: fallocate(fd, 3, at, length),
    'zero': lambda fd, at, length: fallocate(fd, 16, at, length),
    'allocate': os.posix_fallocate,
    'copy': lambda fd, at, to, length: copy_range(fd, fd, at, to, length),
    'copyIn': copy_in,
    'rewrite': lambda fd, name, length: put(fd, content(name, length), 0),
    'fsync': os.fsync,
}
mapped = {
    'keptRead': kept_read,
    'keptWrite': kept_write,
    'keptSync': kept_sync,
}
