// The store on disk: STORE/ns behind an fd, staging for stubs being built, the journal of running
// restores, and what all inodes share.
#ifndef LUSTRITE_STORE_STORE_IMPL_H_
#define LUSTRITE_STORE_STORE_IMPL_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "handles.h"
#include "inode_impl.h"
#include "leases.h"
#include "lost_writes.h"
#include "store.h"
#include "syncer.h"
#include "threads.h"
#include "unlinked.h"

namespace lustrite {

struct ProbeResult {
  std::string file_system;
  bool handles = false;
  bool leases = false;
  bool punch_hole = false;
  size_t xattr_room = 0;
  bool privileged = false;
};

// Called on any thread, with locks held: must only pass the message on.
using RestoreNeeded = std::function<void(const Fid& fid, pid_t pid)>;
// The last name and the last handle of a file that has a copy are gone. The same.
using FileGone = std::function<void(const Fid& fid, const Record& record)>;

class StoreImpl final : public Store, public std::enable_shared_from_this<StoreImpl> {
 public:
  // Opens or creates `path`/ns. Null with *error and *why.
  // `changed`: as of Changes::Listen.
  static std::shared_ptr<StoreImpl> Open(const std::string& path, RestoreNeeded restore_needed,
                                         FileGone file_gone, std::function<void()> changed,
                                         int* error, std::string* why);
  StoreImpl() = default;
  ~StoreImpl() override;
  // Fails what waits and joins the threads; every later call fails. Not from a thread of the store.
  void Close();

  int root() const override { return root_.get(); }
  Fid root_fid() const override { return root_fid_; }
  std::shared_ptr<Inode> Get(int fd, int* error) override { return GetImpl(fd, error); }
  std::shared_ptr<Inode> Get(const Fid& fid, int* error) override { return GetImpl(fid, error); }
  int NoteRename() override;
  std::shared_lock<std::shared_mutex> HoldNames() override {
    return std::shared_lock(names_mutex_);
  }
  // Nobody unlinks or renames meanwhile.
  std::unique_lock<std::shared_mutex> StopNames() { return std::unique_lock(names_mutex_); }
  Changes& changes() override { return changes_; }
  void SetObserver(InodeObserver* observer) override;
  void SetPartialReads(bool on) override { partial_reads_ = on; }
  void FailWaiters(int error) override;

  std::shared_ptr<InodeImpl> GetImpl(int fd, int* error);
  std::shared_ptr<InodeImpl> GetImpl(const Fid& fid, int* error);
  // Only when it is in the table already.
  std::shared_ptr<InodeImpl> Find(const Fid& fid);
  std::vector<std::shared_ptr<InodeImpl>> All();
  void Forget(const Fid& fid);

  const ProbeResult& probe() const { return probe_; }
  const Handles& handles() const { return handles_; }
  int staging() const { return staging_.get(); }
  Leases& leases() { return *leases_; }
  Threads& pool() { return pool_; }
  Syncer& syncer() { return *syncer_; }
  // Whatever was changed before is durable no later than what somebody makes durable afterwards.
  int Barrier();
  uint64_t boot() const { return boot_; }
  // What tells its files from those of another store on the same file system.
  uint32_t id() const { return id_; }
  bool partial_reads() const { return partial_reads_; }
  void SetNonBlockingRestore(bool on) { non_blocking_restore_ = on; }
  bool non_blocking_restore() const { return non_blocking_restore_; }
  // File times move with every change that follows a stat, however quickly (multigrain timestamps,
  // Linux 6.13).
  bool fine_times() const { return fine_times_; }
  uint64_t NextTicket() { return ++tickets_; }

  void NeedRestore(const Fid& fid, pid_t pid) { restore_needed_(fid, pid); }
  Unlinked& unlinked() { return unlinked_; }
  LostWrites& lost_writes() { return lost_writes_; }
  // Only where somebody wants to be told (remove_archive_on_last_unlink).
  void SetTellGone(bool on) { tell_gone_ = on; }
  void FileIsGone(const Fid& fid, const Record& record) {
    if (tell_gone_) file_gone_(fid, record);
  }
  // Which inodes have open handles; told by the inode, under its own lock.
  void Opened(const Fid& fid, std::weak_ptr<InodeImpl> inode);
  void Closed(const Fid& fid);
  std::vector<std::shared_ptr<InodeImpl>> Open();
  // Runs on the dispatcher, in order, with no lock held.
  void Dispatch(Task task) { dispatcher_.Post(std::move(task)); }
  // Tells the front end, if there is one, then runs `then`.
  void TellInodeChanged(std::shared_ptr<Inode> inode, bool data, std::optional<uint64_t> size,
                        std::function<void(int error)> then);
  void TellEntryChanged(const Fid& directory, std::string name);
  bool Observed();

  // Restores that a killed daemon left half done are punched at the next start.
  int JournalRestore(const Fid& fid);
  void UnjournalRestore(const Fid& fid);

  void ShowAction(const Fid& fid, const struct hsm_current_action* action);
  struct hsm_current_action ShownAction(const Fid& fid);

  uint64_t renames() const { return renames_ + late_; }
  // Something was made by an fd of a directory, which may have been moved meanwhile.
  void NoteLate() { late_++; }
  // Without those.
  uint64_t names_changed() const { return renames_; }
  bool ever_renamed() const { return ever_renamed_; }
  std::map<std::string, double> Stats();

 private:
  int Prepare(const std::string& path, std::string* why);
  int Identify();
  bool TrustAsBefore();
  int Probe(std::string* why);
  int Recover();

  UniqueFd dir_, root_, staging_, journal_;
  Fid root_fid_;
  Handles handles_;
  ProbeResult probe_;
  uint64_t boot_ = 0;
  uint32_t id_ = 0;
  bool fine_times_ = false;
  bool ordered_ = false;
  RestoreNeeded restore_needed_;
  FileGone file_gone_;
  Unlinked unlinked_;
  LostWrites lost_writes_;
  Changes changes_;
  std::unique_ptr<Leases> leases_;
  std::unique_ptr<Syncer> syncer_;
  Threads pool_{"lustrite-store", 32};
  Threads dispatcher_{"lustrite-wake", 1};
  std::atomic<bool> partial_reads_{true};
  std::atomic<bool> non_blocking_restore_{false};
  std::atomic<bool> tell_gone_{false};
  std::atomic<bool> closed_{false};
  std::atomic<uint64_t> tickets_{0};
  std::atomic<uint64_t> renames_{0};
  std::atomic<uint64_t> late_{0};
  std::atomic<bool> ever_renamed_{false};
  std::mutex rename_mutex_;
  // Before an inode's mutex, never under it: who renames has the names and asks inodes.
  std::shared_mutex names_mutex_;

  // Never held together with an inode's mutex by the same thread in the order table -> inode.
  std::mutex table_mutex_;
  std::unordered_map<Fid, std::weak_ptr<InodeImpl>, FidHash> table_;

  // Taken with an inode's mutex held, never the other way round.
  std::mutex open_mutex_;
  std::unordered_map<Fid, std::weak_ptr<InodeImpl>, FidHash> open_;

  std::mutex observer_mutex_;
  InodeObserver* observer_ = nullptr;

  std::mutex journal_mutex_;
  std::vector<Fid> journal_slots_;

  std::mutex actions_mutex_;
  std::unordered_map<Fid, struct hsm_current_action, FidHash> actions_;
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_STORE_IMPL_H_
