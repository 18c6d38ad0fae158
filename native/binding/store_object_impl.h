// The class behind NativeStore: its methods are in store_object.cc (the store as such),
// store_namespace.cc, store_hsm.cc and store_paths.cc.
#ifndef LUSTRITE_BINDING_STORE_OBJECT_IMPL_H_
#define LUSTRITE_BINDING_STORE_OBJECT_IMPL_H_

#include <napi.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "../store/store_impl.h"
#include "path_handles.h"
#include "store_object.h"

namespace lustrite {

using Info = Napi::CallbackInfo;

// Undefined, with the Error of ErrnoError thrown.
Napi::Value Throw(Napi::Env env, int error, const std::string& what);

class StoreObject : public Napi::ObjectWrap<StoreObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  static Napi::Value Wrap(Napi::Env env, std::shared_ptr<StoreImpl> store);
  explicit StoreObject(const Info& info) : ObjectWrap(info) {}
  ~StoreObject() override {
    if (store_ != nullptr) store_->Close();
  }
  std::shared_ptr<StoreImpl> store() const { return closed_ ? nullptr : store_; }

 private:
  Napi::Value Stats(const Info& info);
  Napi::Value Close(const Info& info);
  Napi::Value Statfs(const Info& info);
  Napi::Value Barrier(const Info& info);
  Napi::Value SetTellGone(const Info& info);
  Napi::Value SetTellChanges(const Info& info);
  Napi::Value TakeChanges(const Info& info);

  // ---- store_namespace.cc
  Napi::Value FidOf(const Info& info);
  Napi::Value PathOf(const Info& info);
  Napi::Value State(const Info& info);
  Napi::Value Lookup(const Info& info);
  Napi::Value Orphans(const Info& info);
  Napi::Value OpenBeneathPath(const Info& info);
  Napi::Value Readlink(const Info& info);
  Napi::Value StartWalk(const Info& info);
  Napi::Value StartCensus(const Info& info);
  Napi::Value Renames(const Info& info);
  Napi::Value EverRenamed(const Info& info);
  Napi::Value CreateStubs(const Info& info);
  Napi::Value SetAttributes(const Info& info);
  Napi::Value Extended(const Info& info);
  Napi::Value ReplaceCopy(const Info& info);
  Napi::Value ReplaceEntry(const Info& info);
  Napi::Value Remove(const Info& info);

  // ---- store_hsm.cc
  Napi::Value BeginRestore(const Info& info);
  Napi::Value RestoreProgress(const Info& info);
  Napi::Value RestoreCanceled(const Info& info);
  Napi::Value FinishRestore(const Info& info);
  Napi::Value FailRestore(const Info& info);
  Napi::Value BeginArchive(const Info& info);
  Napi::Value ArchiveQuiet(const Info& info);
  Napi::Value FinishArchive(const Info& info);
  Napi::Value AbortArchive(const Info& info);
  Napi::Value Release(const Info& info);
  Napi::Value MayWrite(const Info& info);
  Napi::Value ChangeFlags(const Info& info);
  Napi::Value MarkModified(const Info& info);
  Napi::Value BeginRemove(const Info& info);
  Napi::Value ForgetCopy(const Info& info);
  Napi::Value ShowAction(const Info& info);
  Napi::Value SetNonBlockingRestore(const Info& info);

  // ---- store_paths.cc
  Napi::Value OpenHandle(const Info& info);
  Napi::Value AdmitRead(const Info& info);
  Napi::Value AdmitWrite(const Info& info);
  Napi::Value CloseHandle(const Info& info);
  Napi::Value Truncate(const Info& info);
  Napi::Value SetTimes(const Info& info);
  Napi::Value Rename(const Info& info);
  Napi::Value UnlinkName(const Info& info);
  Napi::Value Link(const Info& info);
  Napi::Value Stat(const Info& info);

  // A promise of nothing: `work` on the inode of the FID in argument 0, on a thread of the store.
  Napi::Value OnInode(const Info& info, const char* what,
                      std::function<int(StoreImpl&, InodeImpl&)> work);
  // A promise of nothing without an inode.
  Napi::Value OnPath(const Info& info, const std::string& what, std::function<int()> work);

  std::shared_ptr<StoreImpl> store_;
  std::shared_ptr<PathHandles> handles_;
  bool closed_ = false;
  // Running archives by token; only JavaScript's thread looks into it.
  struct Archives {
    double next = 1;
    std::map<double, std::shared_ptr<InodeImpl>> inodes;
  };
  const std::shared_ptr<Archives> archives_ = std::make_shared<Archives>();
};

}  // namespace lustrite

#endif  // LUSTRITE_BINDING_STORE_OBJECT_IMPL_H_
