// A mounted store: from mount(2) to the last answer.
#ifndef LUSTRITE_FUSE_SESSION_H_
#define LUSTRITE_FUSE_SESSION_H_

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core.h"

namespace lustrite::fuse {

class Session {
 public:
  // Mounts and returns once the file system answers. On failure *error and *what (what failed) are
  // set; the session is null unless it had begun, and then `closed` comes as for every session.
  static std::shared_ptr<Session> Mount(std::shared_ptr<Store> store, SessionOptions options,
                                        SessionEvents events, int* error, std::string* what);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  bool passthrough() const { return core_.passthrough; }

  // Answers an event's question. Unknown or interrupted ids are ignored.
  void Answer(uint64_t id, int error) { AnswerQuestion(core_, id, error); }
  void AnswerLink(uint64_t id, uint32_t links, const std::string& path) {
    fuse::AnswerLink(core_, id, links, path);
  }

  // Unmounts and waits until the kernel has let go. EBUSY while in use unless `lazy`. Blocks: never
  // from the thread that runs the events.
  int Unmount(bool lazy);

  // Requests by opcode, and how much is held, known and open.
  std::map<std::string, uint64_t> Stats();

 private:
  Session(std::shared_ptr<Store> store, SessionOptions options, SessionEvents events, UniqueFd fd);

  void Serve(const RequestPtr& request);
  void OnInit(const RequestPtr& request);
  bool WaitUntilReady();
  // On a thread of its own, after the last reader has stopped.
  void End();

  Core core_;
  Readers readers_;
  const bool debug_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ready_ = false;
  bool over_ = false;   // no reader left
  bool ended_ = false;  // everything is given back
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_SESSION_H_
