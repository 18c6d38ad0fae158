// The store: the tree below STORE/ns, reached by fd and file handle only, and the table of inodes
// that hold state in memory.
#ifndef LUSTRITE_STORE_STORE_H_
#define LUSTRITE_STORE_STORE_H_

#include <memory>
#include <shared_mutex>
#include <string>

#include "changes.h"
#include "inode.h"

namespace lustrite {

class Store {
 public:
  virtual ~Store() = default;

  // O_RDONLY|O_DIRECTORY fd of ns/.
  virtual int root() const = 0;
  virtual Fid root_fid() const = 0;

  // The inode behind an fd (O_PATH is enough). Never null unless *error. The table keeps it while
  // somebody holds the pointer or it has state; two calls give the same object.
  virtual std::shared_ptr<Inode> Get(int fd, int* error) = 0;
  // By FID, through its file handle: ENOENT/ESTALE when it is gone.
  virtual std::shared_ptr<Inode> Get(const Fid& fid, int* error) = 0;

  // A name was changed by rename, link or exchange: durable note before the first such change is
  // answered.
  virtual int NoteRename() = 0;
  // Held over each unlink, rmdir, link and rename, so that a job which looks at a name and then
  // takes it away takes what it looked at.
  virtual std::shared_lock<std::shared_mutex> HoldNames() = 0;

  // For the changelog: whoever takes names away or gives them notes it here.
  virtual Changes& changes() = 0;

  // One front end at a time; null to take it away. After the call with null returns no call is
  // running.
  virtual void SetObserver(InodeObserver* observer) = 0;
  // Readers get bytes before the restore has ended.
  virtual void SetPartialReads(bool on) = 0;
  // Fails every waiting request with `error` (the session is ending).
  virtual void FailWaiters(int error) = 0;
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_STORE_H_
