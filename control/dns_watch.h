// DnsNames and DnsResolver brought to life: keeps the names of the model in force fresh and tells when an answer differs.
//
// `changed` is called in a thread of its own, never while a lock of this class is held; several changes may be told as one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "control/dns_names.h"
#include "control/dns_resolver.h"

namespace millrace::control {

class DnsWatch {
 public:
  DnsWatch(std::function<void()> changed, std::function<void(const std::string&)> say);
  ~DnsWatch();
  DnsWatch(const DnsWatch&) = delete;
  DnsWatch& operator=(const DnsWatch&) = delete;

  void follow(const Model& model);
  // Asks for the names of a model that is about to be in force and waits until each was answered or failed once (Envoy: a cluster
  // that warms), at most `wait`. Returns whether they were.
  bool warm(const Model& model, std::chrono::milliseconds wait);
  Model resolved(const Model& model);

 private:
  void on_answer(const DnsQuestion& question, const DnsAnswer& answer);
  void ask_due();  // holds mutex_
  void keep_time();
  void tell();

  const std::function<void()> changed_;
  const std::function<void(const std::string&)> say_;
  std::mutex mutex_;
  std::condition_variable answers_, timer_, news_;
  DnsNames names_;
  bool dirty_ = false, stopping_ = false;
  std::thread timer_thread_, tell_thread_;
  std::unique_ptr<DnsResolver> resolver_;  // the last to come and the first to go: it calls on_answer()
};

}  // namespace millrace::control
