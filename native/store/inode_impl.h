// The inode with its state in memory. One class, its parts by topic: inode_impl.cc (record,
// queries), inode_admit.cc (what a front end asks), inode_suspend.cc (clean <-> possibly written),
// inode_restore.cc, inode_archive.cc, inode_release.cc (release, new copy), inode_flags.cc.
//
// Locks: `mutex_` guards the fields and is held over quick system calls only (stat, one xattr),
// never over fsync, leases or the front end's calls. Longer changes hold `busy_`: one at a time, on
// a thread that is running it (never on one still to be scheduled), and they check the handle
// counts after they have it. While busy, whoever would be in the way waits: front ends as waiters
// that are told to ask again, threads of the store on `idle_`.
//
// A caller holds a shared_ptr to the inode during each call, so giving up the self-reference under
// the lock is safe.
#ifndef LUSTRITE_STORE_INODE_IMPL_H_
#define LUSTRITE_STORE_INODE_IMPL_H_

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "extended_attributes.h"
#include "inode.h"
#include "leases.h"
#include "lost_writes.h"
#include "record.h"
#include "rules.h"

namespace lustrite {

class StoreImpl;

struct FileState {
  Fid fid;
  struct stat st = {};  // as shown
  uint64_t allocated = 0;
  uint8_t flags = 0;
  uint32_t archive_id = 0;
  bool modified = false;
  bool needs_archive = false;
  std::optional<Copy> copy;
  int writers = 0;
  int readers = 0;
  bool restoring = false;
};

struct NewCopy {
  Copy copy;
  // The copy is known not to have the content: lost_from_hsm from the first moment.
  bool lost = false;
  // Otherwise the caller's Barrier makes it so, where there is no data to be given up for it.
  bool durable = true;
  uint64_t size = 0;
  struct timespec mtime = {};
  mode_t mode = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<ExtendedAttribute> extended;
};

struct ArchivePlan {
  int fd = -1;
  struct stat st = {};
  std::optional<Copy> copy;
};

class InodeImpl final : public Inode {
 public:
  InodeImpl(std::shared_ptr<StoreImpl> store, const Fid& fid);
  ~InodeImpl() override;

  // ---- inode.h
  Fid fid() const override { return fid_; }
  UniqueFd OpenBacking(int flags, int* error) override;
  void Show(struct stat* st, bool* stable) override;
  struct hsm_user_state HsmState() override;
  struct hsm_current_action HsmAction() override;
  int ShowXattr(const std::string& name, std::string* value) override;
  Verdict AdmitOpen(int flags, pid_t pid, bool passthrough_ok, Wake wake, OpenFile* out) override;
  void CloseHandle(OpenFile* file) override;
  Verdict AdmitRead(OpenFile* file, uint64_t offset, uint64_t length, pid_t pid,
                    Wake wake) override;
  uint64_t ReadEpoch() const override { return read_epoch_; }
  Verdict AdmitModify(pid_t pid, Wake wake) override;
  void EndModify() override;
  Verdict AdmitSeek(pid_t pid, Wake wake) override;
  int Fsync(int fd, bool data_only) override;
  Verdict Truncate(off_t size, pid_t pid, Wake wake) override;
  int SetTimes(const struct timespec times[2]) override;
  void MetadataChanged() override;
  void LosesLastName() override;
  void LostLastName() override;
  bool MayHaveCopy() override;
  bool Withdraw(uint64_t ticket) override;

  // ---- for the store and the binding; these may take as long as an fsync unless said otherwise
  // The record through an fd on this inode (O_PATH is enough); quick. EIO: not a record of ours.
  int Load(int fd);
  int State(FileState* state);

  int BeginRestore(const std::optional<Copy>& copy, int* fd, uint64_t* size);
  void RestoreProgress(uint64_t bytes);  // quick
  void RestoreCanceled();                // quick
  // `done` on a thread of the store.
  void FinishRestore(const Copy& copy, std::function<void(int)> done);
  int FailRestore(int error);
  // Of a daemon that was killed: punched, its own size and times.
  int RecoverRestore();

  int BeginArchive(uint32_t archive_id, ArchivePlan* plan);
  bool ArchiveQuiet();  // quick
  // `partly`: the container has less than the whole of it, so the file stays dirty.
  void FinishArchive(const Copy& copy, bool partly,
                     std::function<void(int error, bool quiet)> done);
  void AbortArchive();

  int Release();
  // `still`, if any, is asked while nobody gives or takes names, until the record says that the
  // data is another copy's: 0, or why it must not.
  int ReplaceCopy(const NewCopy& with, const std::function<int()>& still = nullptr);
  // Of a symbolic link, whose data is never away: the blob that it is in.
  int RecordCopy(const Copy& copy);
  // Runs `take`, which takes the inode's name away, while nobody has the file open or mapped: EBUSY
  // otherwise. `only_clean`: ESTALE where its content is in no copy.
  int Displace(bool only_clean, const std::function<int()>& take);
  int ChangeFlags(uint8_t set, uint8_t clear, uint32_t archive_id);
  int MarkModified();
  // Before the blob of its copy is deleted: the content counts as in no copy, and the record says
  // that there may be one.
  int BeginRemove();
  int ForgetCopy();

  void FailWaiters(int error);
  // The store is closing, its threads have ended: what is only remembered is written down.
  void Abandon();
  struct Gauges {
    int handles = 0, waiting = 0;
    bool suspended = false, restoring = false, archiving = false;
  };
  Gauges Count();

 private:
  using Lock = std::unique_lock<std::mutex>;
  class Busy;

  struct Waiter {
    uint64_t ticket = 0;
    Wake wake;
    // kSize: the kernel has the size of the file.
    enum Kind : uint8_t { kIdle, kRestored, kBytes, kSize } kind = kIdle;
    OpenFile* file = nullptr;
    uint64_t end = 0;  // kBytes: offset behind the last wanted byte
  };
  struct Restore {
    bool running = false;
    // That somebody waits for it, since it was canceled last.
    bool told = false;
    UniqueFd fd;
    std::optional<Copy> copy;  // another version than the record's
    uint64_t watermark = 0;
  };
  struct Archive {
    std::unique_ptr<Lease> lease;
    Evidence sample;
    bool quiet = true;
  };

  // ---- inode_impl.cc; called with the lock held
  void BeginBusy(Lock& lock, bool closed_to_readers);
  void EndBusy(int error);
  int Loaded();
  // Replaces the record in memory and on disk (durable only with the next fsync of the inode),
  // st_ctime as shown kept.
  int Write(int fd, Record record);
  int WriteExact(int fd, const Record& record);
  // fsync, of whose errors the others still hear. Without the lock.
  int Sync(int fd, LostWrites::Hearer hearer = LostWrites::kNobody);
  // An fd for stat and xattrs, of any type of file. It may be the pin: only while the lock is held.
  int Borrow(UniqueFd* own, int* error) const;
  int Look(Evidence* evidence);
  Content Judge(const Evidence& now) const;
  // Suspended, and size and mtime are as they were then. The change time does not count: chmod and
  // link move it.
  bool Unwritten(const Evidence& now) const;
  // Gives the inode the mtime that was kept for it, unless it was written since.
  int GiveMtime(int fd);
  Verdict Wait(Waiter::Kind kind, Wake wake, OpenFile* file, uint64_t end);
  std::vector<Wake> TakeWaiters(const std::function<bool(const Waiter&)>& which);
  void Post(std::vector<Wake> wakes, int error);
  void UpdatePin();
  bool HasCopy() const { return record_.copy && (record_.flags & HS_EXISTS) != 0; }
  bool handles_open() const { return readers_ + writers_ > 0; }
  bool being_written() const { return writers_ + modifications_ > 0; }

  // ---- inode_admit.cc
  void AskRestore(pid_t pid);
  // Asks for the restore, and holds the request until it is done; with the policy
  // NonBlockingRestore it fails with ENODATA.
  Verdict WaitForRestore(Waiter::Kind kind, pid_t pid, Wake wake, OpenFile* file, uint64_t end);
  // kGo when the content may change now; else the request was queued.
  Verdict PrepareModify(pid_t pid, Wake& wake);
  void NobodyIsQuiet();
  int KeepTimes(int fd, const struct timespec times[2]);

  // ---- inode_flags.cc
  // Durably changes what the record says of the copy of a resident file.
  int Disclaim(const std::function<void(Record*)>& change);

  // ---- inode_suspend.cc
  void QueueSuspend();
  void Suspend();
  int SuspendBusy(Lock& lock);
  void QueueTruncateReleased();
  int TruncateReleasedBusy(Lock& lock);
  void QueueSettle();
  bool MaySettle() const;
  // Tries to prove that the content is as stated; the lock is released meanwhile.
  void Settle(Lock& lock);
  // The same under a lease (or without: null) and an fsync that came after it.
  void SettleUnder(Lock& lock, const Lease* lease, int fd);
  // Says durably that the content is not the copy's.
  int FoldDurably(Lock& lock, int fd);
  int SyncRecord(Lock& lock, int fd);

  // ---- inode_restore.cc
  void Restored(int error, const Copy& copy, const std::function<void(int)>& done);
  void FailBeyond(uint64_t size);
  void TellSize(bool data, uint64_t size, std::function<void()> then);
  int TellMissedSize();
  std::optional<Verdict> AwaitSize(Wake& wake, OpenFile* file, uint64_t end);
  void WakeReaders(int error);

  // ---- inode_archive.cc
  void Archived(int error, bool quiet, const std::function<void(int, bool)>& done);

  // ---- inode_release.cc
  // The copy has what the file has.
  // Released, and nothing is on its way here.
  bool WithoutData();
  bool InContainer(Content content) const;
  int WhenUnused(Lock& lock, const std::function<int()>& act);
  int EmptyBusy(Lock& lock, const NewCopy* with, const std::function<int()>& still);

  const std::shared_ptr<StoreImpl> store_;
  const Fid fid_;

  std::mutex mutex_;
  std::condition_variable idle_;
  bool busy_ = false;
  // Busy with what even a reader must not see (release).
  bool closed_to_readers_ = false;
  // New sizes that the kernel is still to be told.
  int untold_sizes_ = 0;
  // It did not take the last one over, or did not know the file yet.
  bool size_missed_ = false;
  // One of the handles that are open has seen another size. The kernel marks attributes as valid
  // before it sets the size that came with them, and a reader that looks in between ends the file
  // at the old one: until these handles are closed, each asks for itself.
  bool resized_under_handles_ = false;

  bool loaded_ = false;
  int load_error_ = 0;
  Record record_;
  // What statx said when the suspension was durable; absent when it was another daemon's.
  std::optional<Evidence> sample_;
  // The mtime that utimes asked for while somebody could be writing: shown, and given to the inode
  // on disk when the suspension ends. It is lost with the daemon until then.
  std::optional<struct timespec> kept_mtime_;
  // The ctime that our own last write to the inode left.
  std::optional<struct timespec> our_ctime_;
  // After a suspension, until the one who asked for it has had its turn: no settling behind its
  // back.
  uint64_t no_settle_until_ns_ = 0;
  // The record says that the content may change, but the fsync that was to make this durable
  // failed.
  bool unsynced_ = false;
  bool suspend_queued_ = false;
  bool truncate_queued_ = false;
  bool settle_queued_ = false;
  // Its last name is gone, and somebody may have it open still.
  bool nameless_ = false;

  int readers_ = 0;
  int writers_ = 0;
  int modifications_ = 0;
  uint64_t modify_epoch_ = 0;
  // Moved, under the lock, before bytes that readers may have been admitted to are punched.
  std::atomic<uint64_t> read_epoch_ = 0;
  DataMode mode_ = DataMode::kNone;
  // ETag of the restore that brought the present content, for handles that were given early bytes.
  std::string restored_etag_;
  // ETag of bytes that were given before their restore ended, while any handle is open: the kernel
  // shows them to every handle, so no other version may follow them.
  std::string early_etag_;

  std::unique_ptr<Restore> restore_;
  std::unique_ptr<Archive> archive_;
  std::vector<Waiter> waiters_;

  // While it has state in memory: the object stays in the table and the inode on disk, unlinked or
  // not.
  std::shared_ptr<Inode> self_;
  UniqueFd pin_;
};

// The right to make a longer change to an inode, given back at the end of the scope.
class InodeImpl::Busy {
 public:
  Busy(InodeImpl* inode, Lock& lock, bool closed_to_readers = false) : inode_(inode), lock_(lock) {
    inode_->BeginBusy(lock, closed_to_readers);
  }
  ~Busy() {
    if (inode_ == nullptr) return;
    if (!lock_.owns_lock()) lock_.lock();
    inode_->EndBusy(error_);
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
  // What requests of the front end that wait for this get (0: ask again).
  int Fail(int error) { return error_ = error; }
  // A continuation calls EndBusy instead.
  void Disown() { inode_ = nullptr; }

 private:
  InodeImpl* inode_;
  Lock& lock_;
  int error_ = 0;
};

// Data away, size and times as given; for files whose record already says RELEASED.
int PunchTo(int fd, uint64_t size, const struct timespec& mtime);
// ESTALE for a record of another store than `store`.
int ReadRecord(int fd, uint32_t store, Record* record);
// Marks it as one of `store`.
int WriteRecord(int fd, uint32_t store, Record record);
uint64_t MonotonicNs();
Evidence EvidenceOf(const struct stat& st);
std::string ProcPath(int fd);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_INODE_IMPL_H_
