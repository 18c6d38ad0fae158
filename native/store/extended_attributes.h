// Extended attributes that an inode is given as it is made or changed: its ACLs, say.
#ifndef LUSTRITE_STORE_EXTENDED_ATTRIBUTES_H_
#define LUSTRITE_STORE_EXTENDED_ATTRIBUTES_H_

#include <optional>
#include <string>
#include <vector>

namespace lustrite {

struct ExtendedAttribute {
  std::string name;
  // None: not to be there.
  std::optional<std::string> value;
};

// Where LUSTRITE_XATTR_LAYOUT of native/abi.h is kept.
inline constexpr char kLayoutXattr[] = "trusted.lustrite.layout";

// Of the inode behind an fd of any kind; ENODATA where there is none.
int GetExtended(int fd, const std::string& name, std::string* value);

// Of the inode behind an fd of any kind. After its mode: an access ACL decides that, too.
int SetExtended(int fd, const std::vector<ExtendedAttribute>& attributes);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_EXTENDED_ATTRIBUTES_H_
