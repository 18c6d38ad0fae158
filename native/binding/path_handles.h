// The namespace by path, for the front end that has nothing but paths (fuse-native).
#ifndef LUSTRITE_BINDING_PATH_HANDLES_H_
#define LUSTRITE_BINDING_PATH_HANDLES_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "../store/store_impl.h"

namespace lustrite {

class PathHandles : public std::enable_shared_from_this<PathHandles> {
 public:
  using Opened = std::function<void(int error, double handle, int fd)>;
  using Done = std::function<void(int error)>;
  explicit PathHandles(std::shared_ptr<StoreImpl> store) : store_(std::move(store)) {}

  // All on a thread of the store; the answers come on any.
  void Open(const std::string& path, int flags, mode_t mode, Opened opened);
  void AdmitRead(double handle, uint64_t offset, uint64_t length, Done done);
  // Before the first write of a handle that was opened for writing with O_NONBLOCK; once is enough.
  void AdmitWrite(double handle, Done done);
  int Close(double handle);
  void Truncate(const std::string& path, off_t size, Done done);
  int SetTimes(const std::string& path, const struct timespec times[2]);
  int Rename(const std::string& from, const std::string& to);
  int Unlink(const std::string& path);
  int Link(const std::string& from, const std::string& to);
  int Stat(const std::string& path, struct stat* st);
  size_t Count();

 private:
  struct Handle {
    std::shared_ptr<InodeImpl> inode;
    OpenFile file;
    UniqueFd fd;
  };
  // Asks until the answer is not to wait; no thread is held meanwhile.
  using Ask = std::function<Verdict(Wake wake)>;
  void Repeat(Ask ask, Done done);
  std::shared_ptr<InodeImpl> InodeAt(const std::string& path, int* error);
  std::shared_ptr<Handle> Find(double handle);

  const std::shared_ptr<StoreImpl> store_;
  std::mutex mutex_;
  std::map<double, std::shared_ptr<Handle>> handles_;
  double next_ = 1;
};

}  // namespace lustrite

#endif  // LUSTRITE_BINDING_PATH_HANDLES_H_
