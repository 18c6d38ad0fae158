// What jobs do to entries of the namespace that are there already.
#ifndef LUSTRITE_STORE_ENTRIES_H_
#define LUSTRITE_STORE_ENTRIES_H_

#include <sys/stat.h>

#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "extended_attributes.h"
#include "fid.h"
#include "store_impl.h"

namespace lustrite {

// 0 while the name in the directory is `fid`'s, ESTALE when it is another's, ENOENT.
int NamedStill(const StoreImpl& store, int directory, const std::string& name, const Fid& fid);

// As a path, and with so many names.
int NamedStill(const StoreImpl& store, const std::string& path, const Fid& fid, nlink_t links);

// Removes the name if it still is `fid`'s: ESTALE if not, ENOTEMPTY. `only_clean`: a file only
// while nobody has it open (EBUSY) and its copy has what it has (ESTALE).
int RemoveEntry(StoreImpl& store, const std::string& path, const Fid& fid, bool only_clean);

struct Attributes {
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<struct timespec> mtime;
  std::vector<ExtendedAttribute> extended;
  // Only while the path is this inode's: ESTALE.
  std::optional<Fid> fid;
};
int SetAttributes(StoreImpl& store, const std::string& path, const Attributes& attributes);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_ENTRIES_H_
