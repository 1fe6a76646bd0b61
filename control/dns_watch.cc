#include "control/dns_watch.h"

#include <random>

namespace millrace::control {

namespace {

base::TimeNs now_ns() {
  return static_cast<base::TimeNs>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

}  // namespace

DnsWatch::DnsWatch(std::function<void()> changed, std::function<void(const std::string&)> say)
    : changed_(std::move(changed)), say_(std::move(say)), names_(std::random_device{}()) {
  resolver_ = std::make_unique<DnsResolver>([this](const DnsQuestion& q, const DnsAnswer& a) { on_answer(q, a); });
  timer_thread_ = std::thread([this] { keep_time(); });
  tell_thread_ = std::thread([this] { tell(); });
}

DnsWatch::~DnsWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  timer_.notify_all();
  news_.notify_all();
  timer_thread_.join();
  tell_thread_.join();
  resolver_.reset();
}

void DnsWatch::ask_due() {
  for (const DnsQuestion& q : names_.due(now_ns())) resolver_->resolve(q);
}

void DnsWatch::follow(const Model& model) {
  const std::lock_guard lock(mutex_);
  names_.follow(model, now_ns());
  ask_due();
  timer_.notify_all();
}

bool DnsWatch::warm(const Model& model, std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  names_.expect(model, now_ns());
  ask_due();
  timer_.notify_all();
  return answers_.wait_for(lock, wait, [&] { return names_.warm(model); });
}

Model DnsWatch::resolved(const Model& model) {
  const std::lock_guard lock(mutex_);
  return names_.resolved(model);
}

void DnsWatch::on_answer(const DnsQuestion& question, const DnsAnswer& answer) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  const DnsNames::Turn turn = names_.answered(question, answer, now_ns());
  if (turn.began_to_fail) say_("DNS: " + question.name + ": " + answer.error + "; what was known of it stays in force");
  if (turn.works_again) say_("DNS: " + question.name + " is answered again");
  if (turn.changed) {
    dirty_ = true;
    news_.notify_all();
  }
  answers_.notify_all();
  timer_.notify_all();
}

void DnsWatch::keep_time() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    ask_due();
    const base::TimeNs next = names_.next_due();
    if (next == base::kNever) {
      timer_.wait(lock);
    } else {
      const base::TimeNs now = now_ns();
      if (next > now) timer_.wait_for(lock, std::chrono::nanoseconds(next - now));
    }
  }
}

void DnsWatch::tell() {
  std::unique_lock lock(mutex_);
  for (;;) {
    news_.wait(lock, [&] { return dirty_ || stopping_; });
    if (stopping_) return;
    dirty_ = false;
    lock.unlock();
    changed_();
    lock.lock();
  }
}

}  // namespace millrace::control
