#include "rules.h"

#include <cerrno>

namespace lustrite {

Content JudgeContent(const Record& record, const Evidence& now, const Evidence* sample,
                     uint64_t boot) {
  if (record.flags & HS_RELEASED) return Content::kReleased;
  if (!record.statement) {
    // A copy without a statement about the content: nothing vouches for it.
    return record.copy || (record.flags & HS_EXISTS) ? Content::kChanged : Content::kNew;
  }
  const Statement& stated = *record.statement;
  const bool as_stated = now.size == stated.size && SameTime(now.mtime, stated.mtime);
  if (!stated.suspended) return as_stated ? Content::kAsStated : Content::kChanged;
  if (sample != nullptr) {
    // The change time, too, but only in memory: our own xattr writes move it.
    const bool same = now.size == sample->size && SameTime(now.mtime, sample->mtime) &&
                      SameTime(now.ctime, sample->ctime);
    return same ? Content::kUnproven : Content::kChanged;
  }
  return as_stated && stated.boot == boot ? Content::kUnproven : Content::kChanged;
}

uint8_t ShownFlags(const Record& record, Content content) {
  const bool dirty = content == Content::kChanged && (record.flags & HS_EXISTS);
  return static_cast<uint8_t>(record.flags | (dirty ? HS_DIRTY : 0));
}

bool ShownModified(const Record& record, Content content) {
  return record.modified || content == Content::kChanged;
}

void Fold(Record* record) {
  if (record->flags & HS_EXISTS) record->flags |= HS_DIRTY;
  record->modified = true;
  record->statement.reset();
}

Before BeforeModify(const Record& record) {
  if (!record.statement) {
    if (record.copy || (record.flags & HS_EXISTS)) {
      const bool noted =
          record.modified && ((record.flags & HS_DIRTY) || !(record.flags & HS_EXISTS));
      return noted ? Before::kNothing : Before::kModified;
    }
    return Before::kNothing;
  }
  if (record.statement->suspended) return Before::kNothing;
  return (record.flags & HS_DIRTY) && !record.modified ? Before::kModified : Before::kSuspend;
}

Settle DecideSettle(const Record& record, Content content, bool lease) {
  if (!record.statement || (record.flags & HS_RELEASED)) return Settle::kNothing;
  if (content == Content::kChanged) return Settle::kFold;
  if (!record.statement->suspended) return Settle::kNothing;
  return lease ? Settle::kClean : Settle::kStaySuspended;
}

int DecideRelease(const Record& record, const ReleaseFacts& facts) {
  const uint8_t flags = ShownFlags(record, facts.content);
  if (flags & (HS_DIRTY | HS_NORELEASE | HS_LOST)) return EPERM;
  if (!(flags & HS_ARCHIVED)) return EPERM;
  if (flags & HS_RELEASED) return facts.restoring ? EBUSY : EALREADY;
  // Lustre's data version: what is on disk must be what was archived, whatever the flags say.
  if (facts.content == Content::kChanged || facts.content == Content::kNew) return EPERM;
  if (record.modified || !record.copy) return EPERM;
  if (facts.handles > 0 || facts.modifications > 0 || facts.archiving || facts.restoring) {
    return EBUSY;
  }
  // Suspended: it takes the lease to know, and the lease settles it.
  return facts.content == Content::kUnproven ? EBUSY : 0;
}

Record AfterArchive(const Record& record, const Copy& copy, bool quiet, const Evidence& now) {
  Record after = record;
  after.copy = copy;
  after.flags |= HS_EXISTS;
  if (quiet) {
    after.flags = static_cast<uint8_t>((after.flags | HS_ARCHIVED) & ~(HS_DIRTY | HS_LOST));
    after.modified = false;
    after.statement = Statement{now.size, now.mtime, false, 0};
  } else {
    Fold(&after);
  }
  return after;
}

Record AfterRestore(const Record& record, const Copy& copy) {
  Record after = record;
  after.flags &= static_cast<uint8_t>(~(HS_RELEASED | HS_DIRTY));
  after.modified = false;
  after.copy = copy;
  after.statement =
      Statement{copy.size, record.statement ? record.statement->mtime : timespec{}, false, 0};
  return after;
}

bool NeedsArchive(const Record& record, Content content) {
  if (content == Content::kReleased) return false;
  return !record.copy || ShownModified(record, content) || (record.flags & HS_DIRTY);
}

struct timespec ShownCtime(const Record& record, const struct timespec& backing,
                           const std::optional<struct timespec>& ours) {
  if (!record.statement && !record.ctime) return backing;
  if (record.flags & HS_RELEASED) return record.ctime ? *record.ctime : record.statement->mtime;
  const bool moved_by_us = ours && SameTime(*ours, backing);
  // Without a memory of our last change only an unsuspended statement says that nobody else moved
  // it.
  const bool settled = record.statement && !record.statement->suspended;
  if (!moved_by_us && !(settled && !ours)) return backing;
  if (record.ctime) return *record.ctime;
  return record.statement ? record.statement->mtime : backing;
}

}  // namespace lustrite
