// A walk over the namespace with the state of every inode: by fd and handle, in memory for one
// directory at a time.
#ifndef LUSTRITE_STORE_WALK_H_
#define LUSTRITE_STORE_WALK_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "inode_impl.h"
#include "store_impl.h"

namespace lustrite {

struct WalkEntry {
  FileState state;
  std::string path;
  std::string target;
};

class Walk {
 public:
  // Below the directory `path` ("": everything). `changed`: regular files that an export would
  // copy, and everything that is no regular file.
  Walk(std::shared_ptr<StoreImpl> store, std::string path, bool changed);

  // Appends up to `batch` entries: a directory's own in its order, then its subdirectories, one
  // after the other and each in full. False at the end. `*error`: a directory could not be read;
  // the next call goes on behind it.
  bool Next(size_t batch, std::vector<WalkEntry>* entries, int* error);

  // From any thread: a Next that runs ends soon, as at the end.
  void Stop() { stopped_ = true; }

 private:
  struct Pending {
    Fid fid;
    std::string path;
  };
  int Enter(const Pending& directory);
  int Fill();
  int Look(const char* name, WalkEntry* entry, bool* wanted);

  const std::shared_ptr<StoreImpl> store_;
  const std::string start_;
  const bool changed_;
  std::atomic<bool> stopped_{false};
  bool started_ = false;
  std::vector<Pending> pending_;  // last first
  std::vector<Pending> found_;    // subdirectories of the current one, in order
  std::string path_;
  UniqueFd fd_;
  std::vector<char> buffer_;
  size_t at_ = 0;
  size_t end_ = 0;
};

// Counts and bytes by state (SEMANTICS "Status").
int Census(const std::shared_ptr<StoreImpl>& store, std::map<std::string, double>* counts);

// The state of the inode behind an O_PATH fd, without putting it into the table if it is not there.
int StateOf(StoreImpl& store, int fd, FileState* state);

int ReadTarget(int fd, std::string* target);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_WALK_H_
