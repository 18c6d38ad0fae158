// An inode of the namespace and the HSM rules that stand between it and a front end: what is shown,
// who may read now, what has to happen before a write, when a file is clean again. Nothing here
// knows FUSE or JavaScript: the FUSE session (native/fuse) and the binding (native/binding) are its
// two callers.
//
// Errors are positive errno values, 0 is success.
//
// Threads: every function may be called from any thread. Inode's own mutex is taken inside; a
// caller holds no lock of its own that a Wake could want. Wakes run on a thread of the store, with
// no lock held.
#ifndef LUSTRITE_STORE_INODE_H_
#define LUSTRITE_STORE_INODE_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "../abi.h"
#include "fid.h"
#include "unique_fd.h"

namespace lustrite {

class Store;

// Told once for a request that was asked to wait: 0 = ask again, else the errno to answer.
using Wake = std::function<void(int error)>;

// What to do with a request. kWait: `wake` was kept and will be called exactly once, unless
// Withdraw(ticket) is called first and returns true.
struct Verdict {
  enum What : uint8_t { kGo, kWait, kFail };
  What what = kGo;
  int error = 0;
  uint64_t ticket = 0;
  static Verdict Go() { return {}; }
  static Verdict Fail(int error) { return {kFail, error, 0}; }
  static Verdict Wait(uint64_t ticket) { return {kWait, 0, ticket}; }
};

// How an inode's handles reach its data. One mode an inode: chosen by the first open handle, kept
// to the last close.
enum class DataMode : uint8_t { kNone, kCached, kPassthrough };

// One open handle. Made by AdmitOpen, ended by CloseHandle; the front end keeps it in between.
struct OpenFile {
  bool writes = false;
  DataMode mode = DataMode::kNone;
  // suid/sgid/capability file opened for writing: PT|DIRECT_IO so that WRITE comes to us and strips
  // them. Also O_APPEND and O_DIRECT writers (fcntl does not reach the kernel's backing file).
  bool direct_io = false;
  // ETag of the first bytes this handle was given before the restore ended.
  std::string pinned_etag;
  // Set when the last restore this handle waited for failed, so that the kernel's page-by-page
  // retries of a failed readahead do not each start a download (monotonic ns until which AdmitRead
  // fails at once).
  uint64_t fail_until_ns = 0;
  int fail_error = 0;
};

class Inode : public std::enable_shared_from_this<Inode> {
 public:
  virtual ~Inode() = default;

  virtual Fid fid() const = 0;

  // An fd on the backing inode by file handle. O_PATH for stat, xattrs, passthrough registration.
  virtual UniqueFd OpenBacking(int flags, int* error) = 0;

  // Turns a stat of the backing inode into what applications see: size, times and st_blocks of a
  // released file from its record, ctime of the application. `*stable`: the kernel may cache it for
  // long (false while suspended or restoring).
  virtual void Show(struct stat* st, bool* stable) = 0;

  virtual struct hsm_user_state HsmState() = 0;
  virtual struct hsm_current_action HsmAction() = 0;
  // "released exists archived", blob and ETag of the copy ("" without one); record as Lustre's
  // 24-byte trusted.hsm. Return ENODATA where there is nothing to show.
  virtual int ShowXattr(const std::string& name, std::string* value) = 0;

  // ---- admission. `pid` is for logs and events only.

  // flags as open(2). Counts the handle on kGo. Released: read-only opens go at once (mode
  // kCached); writers wait for the restore, O_NONBLOCK ones pass and wait at their first WRITE
  // instead; O_TRUNC restores nothing and performs the truncation itself. A clean inode is
  // suspended durably before kGo for a writer. `passthrough_ok`: the front end could serve
  // kPassthrough (backing id obtainable).
  virtual Verdict AdmitOpen(int flags, pid_t pid, bool passthrough_ok, Wake wake,
                            OpenFile* out) = 0;
  virtual void CloseHandle(OpenFile* file) = 0;

  // May [offset, offset+length) be read through this cached handle? A read that reaches the end of
  // the file waits for the whole restore.
  virtual Verdict AdmitRead(OpenFile* file, uint64_t offset, uint64_t length, pid_t pid,
                            Wake wake) = 0;

  // Bytes that were read through a cached handle are good only if this is what it was before they
  // were admitted: a restore that fails or starts again takes away what readers were already given.
  // Else ask again.
  virtual uint64_t ReadEpoch() const = 0;

  // Before WRITE, FALLOCATE, copy destination. Restored, suspended, our lease dropped. kGo opens a
  // modification that must be ended by EndModify; while one is open the inode is neither released
  // nor called clean.
  virtual Verdict AdmitModify(pid_t pid, Wake wake) = 0;
  virtual void EndModify() = 0;

  // An application's fsync or fdatasync, of an fd of the backing inode: also of errors that only
  // the store has heard of.
  virtual int Fsync(int fd, bool data_only) = 0;

  // Before LSEEK DATA/HOLE.
  virtual Verdict AdmitSeek(pid_t pid, Wake wake) = 0;

  // The whole of truncate(2)/ftruncate(2): admission and the change. To 0 restores nothing.
  virtual Verdict Truncate(off_t size, pid_t pid, Wake wake) = 0;

  // utimensat with UTIME_OMIT/UTIME_NOW as in `times`. Never hides a write.
  virtual int SetTimes(const struct timespec times[2]) = 0;

  // After chmod, chown, link, unlink, rename, setxattr of the application: refreshes the ctime that
  // is shown.
  virtual void MetadataChanged() = 0;

  // Around unlink and rename over it, names held: its last name is about to go, then it is gone. So
  // that its copy can still be removed.
  virtual void LosesLastName() = 0;
  virtual void LostLastName() = 0;

  // The container may have a copy of it (HS_EXISTS).
  virtual bool MayHaveCopy() = 0;

  // The request behind `ticket` was interrupted: true = its Wake will never be called.
  virtual bool Withdraw(uint64_t ticket) = 0;

  // ---- for the front end's own bookkeeping
  // The kernel must be told of this inode: set once by the session, cleared when it forgets. Null =
  // not known to it.
  void* front_end_data = nullptr;
};

// What a front end does when the store changes an inode behind the kernel's back. Called with no
// lock held.
class InodeObserver {
 public:
  virtual ~InodeObserver() = default;
  // Attributes (and, when `data`, cached pages) are no longer what the kernel may have. `then` runs
  // after the kernel was told and, where the file has a new `size`, ends the file there: whoever
  // reads on would else get zeros behind a smaller size, or nothing behind a larger one. Its error
  // is ENODATA where the kernel does not take the size over, ESTALE where it does not know the
  // file, or not yet.
  virtual void InodeChanged(const std::shared_ptr<Inode>& inode, bool data,
                            std::optional<uint64_t> size, std::function<void(int error)> then) = 0;
  // A name appeared, vanished or changed in a directory (import, remove).
  virtual void EntryChanged(const Fid& directory, const std::string& name,
                            std::function<void()> then) = 0;
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_INODE_H_
