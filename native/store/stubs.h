// Entries of the namespace made from blobs. Born whole: built where nobody sees them (size, times,
// owner, record) and given their name by one call that replaces nothing but what it was told to.
#ifndef LUSTRITE_STORE_STUBS_H_
#define LUSTRITE_STORE_STUBS_H_

#include <functional>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "extended_attributes.h"
#include "inode_impl.h"
#include "store_impl.h"

namespace lustrite {

enum class StubKind : uint8_t { kFile, kDirectory, kSymlink };

struct Stub {
  std::string path;
  StubKind kind = StubKind::kFile;
  mode_t mode = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  struct timespec mtime = {};
  uint64_t size = 0;
  std::string target;
  std::optional<Copy> copy;
  std::vector<ExtendedAttribute> extended;
};

struct StubDefaults {
  mode_t dir_mode = 0755;
  uid_t uid = 0;
  gid_t gid = 0;
  struct timespec mtime = {};
};

struct StubResult {
  enum Kind : uint8_t { kCreated, kExists, kFailed } kind = kFailed;
  int error = 0;
  Fid fid;
  FileState state;
};

// One batch of stubs. The front end hears of what was made a few dozen entries at a time (a message
// each would cost a wakeup a stub), of the last of them when the batch is destroyed.
class StubMaker {
 public:
  StubMaker(StoreImpl& store, const StubDefaults& defaults);
  // A stub that was made in a directory that was moved meanwhile is elsewhere than its blob:
  // whoever looks for such files has to look again.
  ~StubMaker();
  StubMaker(const StubMaker&) = delete;
  StubMaker& operator=(const StubMaker&) = delete;
  StubResult Make(const Stub& stub);
  // Gives the stub the name of `fid`, which is gone then: a file with its data, clean or not, a
  // symbolic link, an empty directory. Nothing but a directory is ever without an owner in between.
  // ESTALE: the name is another's; EBUSY: the file is open or mapped, archived or restored;
  // ENOTEMPTY.
  StubResult Replace(const Stub& stub, const Fid& fid);

 private:
  class Staged;
  using Move = std::function<int(Staged&)>;
  struct Directory {
    UniqueFd fd;  // O_PATH
    Fid fid;
  };

  // Opens or makes the directory, and those above it. Valid until the next call.
  const Directory* Parent(const std::string& path, int* error);
  int MakeParent(const std::string& path);
  int MakeFile(const Stub& stub, int parent, const std::string& name, Fid* fid);
  int MakeFileInStaging(const Stub& stub, const Move& move, Fid* fid);
  int MakeOther(const Stub& stub, const Move& move, Fid* fid);
  StubResult Exists(int parent, const std::string& name);
  void Made(const Fid& directory, const std::string& name);
  void Tell();

  StoreImpl& store_;
  const StubDefaults defaults_;
  const uint64_t names_changed_;
  // Least recently used last.
  std::list<std::pair<std::string, Directory>> recent_;
  std::unordered_map<std::string, decltype(recent_)::iterator> parents_;
  std::vector<std::pair<Fid, std::string>> untold_;
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_STUBS_H_
