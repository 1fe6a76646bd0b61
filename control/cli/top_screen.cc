#include "control/cli/top_screen.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "control/cli/table.h"

namespace millrace::cli {

namespace pb = control::v1;

namespace {

constexpr size_t kBarWidth = 20, kLoadBarWidth = 10;
constexpr size_t kMostReasons = 8;  // drop reasons and response flags shown
constexpr uint64_t kStuckMs = 1'000;

std::string number(double v, int digits) {
  char out[32];
  std::snprintf(out, sizeof out, "%.*f", digits, v);
  return out;
}
// Nothing where there is nothing to divide by.
std::string quotient(double v) { return v <= 0 ? "-" : rate(v); }
std::string gbit(double v) { return v <= 0 ? "0" : v < 0.01 ? number(v, 4) : v < 10 ? number(v, 2) : number(v, 1); }
Color heat(double load) { return load >= 0.9 ? Color::kRed : load >= 0.7 ? Color::kYellow : Color::kGreen; }

// A table's columns, each with the rank at which it goes when the screen is narrow (0: stays).
template <class Row>
struct Column {
  const char* title;
  int rank;
  std::function<Table::Cell(const Row&)> cell;
};

template <class Row>
std::string fitted(const std::vector<Column<Row>>& columns, const std::vector<const Row*>& rows, size_t width) {
  int most = 0;
  for (const auto& c : columns) most = std::max(most, c.rank);
  for (int keep = most;; --keep) {
    std::vector<std::string> titles;
    for (const auto& c : columns)
      if (c.rank <= keep) titles.push_back(c.title);
    Table table(titles);
    for (const Row* r : rows) {
      std::vector<Table::Cell> cells;
      for (const auto& c : columns)
        if (c.rank <= keep) cells.push_back(c.cell(*r));
      table.row(std::move(cells));
    }
    std::string text = table.to_string();
    size_t widest = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      widest = std::max(widest, visible_width(std::string_view(text).substr(at, end - at)));
      at = end + 1;
    }
    if (width == 0 || widest <= width || keep == 0) return text;
  }
}

std::string head(const pb::TopFrame& f, const ScreenOptions& o) {
  std::string left = paint("millrace", Color::kBold);
  if (f.connected()) {
    left += "  up " + duration_ms(f.uptime_ms()) + "  " + std::to_string(f.workers_size()) +
            (f.workers_size() == 1 ? " worker" : " workers");
    if (f.tsc_hz() != 0) left += "  TSC " + number(static_cast<double>(f.tsc_hz()) / 1e9, 2) + " GHz";
  }
  if (o.clock.empty()) return left + "\n";
  constexpr size_t kWidest = 120;  // the eye does not find what stands far away
  const size_t used = visible_width(left) + display_width(o.clock), line = std::min(o.width, kWidest);
  const size_t gap = line > used + 2 ? line - used : 2;
  return left + std::string(gap, ' ') + o.clock + "\n";
}

std::string workers(const pb::TopFrame& f, size_t width) {
  using W = pb::WorkerRates;
  const W* total = &f.total();
  const auto bold = [total](const W& w) { return &w == total ? Color::kBold : Color::kNone; };
  const auto plain = [bold](auto get) { return [bold, get](const W& w) { return Table::Cell(get(w), bold(w)); }; };
  const std::vector<Column<W>> columns = {
      {">WORKER", 0, plain([total](const W& w) { return &w == total ? std::string("all") : std::to_string(w.worker()); })},
      {">LOAD", 0, [](const W& w) { return Table::Cell(percent(w.load()), heat(w.load())); }},
      {"", 7, [](const W& w) { return Table::Cell(bar(w.load(), kLoadBarWidth), heat(w.load())); }},
      {">REQ/S", 0, plain([](const W& w) { return rate(w.requests()); })},
      {">CONN/S", 1, plain([](const W& w) { return rate(w.accepted()); })},
      {">PKT IN/S", 3, plain([](const W& w) { return rate(w.rx_packets()); })},
      {">PKT OUT/S", 5, plain([](const W& w) { return rate(w.tx_packets()); })},
      {">GBIT IN", 4, plain([](const W& w) { return gbit(w.rx_gbit()); })},
      {">GBIT OUT", 4, plain([](const W& w) { return gbit(w.tx_gbit()); })},
      {">CYC/REQ", 2, plain([](const W& w) { return quotient(w.cycles_per_request()); })},
      {">CYC/PKT", 6, plain([](const W& w) { return quotient(w.cycles_per_packet()); })},
      {">BURST", 6, plain([](const W& w) { return w.burst() <= 0 ? std::string("-") : number(w.burst(), 1); })},
      {"", 0,
       [](const W& w) {
         return Table::Cell(w.heartbeat_age_ms() > kStuckMs ? "no turn for " + duration_ms(w.heartbeat_age_ms()) : "",
                            Color::kRed);
       }},
  };
  std::vector<const W*> rows;
  for (const W& w : f.workers()) rows.push_back(&w);
  if (f.workers_size() > 1) rows.push_back(total);
  return fitted(columns, rows, width);
}

std::string counts_line(const pb::TopFrame& f) {
  const pb::WorkerRates& t = f.total();
  std::string line = count(t.connections()) + " connections, " + count(t.exchanges()) + " requests under way";
  if (f.seconds() > 0) {
    line += ", " + rate(t.opened()) + " upstream conn/s";
    if (t.handshakes() > 0) line += ", " + rate(t.handshakes()) + " handshakes/s";
    if (t.failed() > 0) line += ", " + paint(rate(t.failed()) + " 5xx/s", Color::kRed);
  }
  return line + "\n";
}

std::string stages(const pb::TopFrame& f, const ScreenOptions& o) {
  if (f.stage_period() == 0 && f.total().stages_size() == 0)
    return paint(o.keys ? "where the cycles go is not being accounted; s switches it on"
                        : "where the cycles go is not being accounted; --stages on switches it on",
                 Color::kDim) +
           "\n";
  if (f.total().stages_size() == 0) return paint("no busy turn was accounted", Color::kDim) + "\n";
  using S = pb::StageShare;
  const std::vector<Column<S>> columns = {
      {"STAGE", 0, [](const S& s) { return Table::Cell(s.name()); }},
      {">OF BUSY", 0, [](const S& s) { return Table::Cell(percent(s.share())); }},
      {"", 3, [](const S& s) { return Table::Cell(bar(s.share(), kBarWidth), Color::kGreen); }},
      {">CYC/REQ", 0, [](const S& s) { return Table::Cell(quotient(s.cycles_per_request())); }},
      {">CYC/ENTRY", 1, [](const S& s) { return Table::Cell(quotient(s.cycles_per_entry())); }},
      {">ENTRIES/REQ", 2,
       [](const S& s) {
         return Table::Cell(s.entries_per_request() <= 0 ? std::string("-") : number(s.entries_per_request(), 2));
       }},
  };
  std::vector<const S*> rows;
  for (const S& s : f.total().stages())
    if (s.share() > 0 || s.cycles_per_entry() > 0) rows.push_back(&s);
  return fitted(columns, rows, o.width);
}

std::string pools(const pb::TopFrame& f, size_t width) {
  using P = pb::PoolStatus;
  const auto share = [](uint64_t n, const P& p) {
    return p.capacity() == 0 ? 0 : static_cast<double>(n) / static_cast<double>(p.capacity());
  };
  const std::vector<Column<P>> columns = {
      {"POOL", 0, [](const P& p) { return Table::Cell(p.name()); }},
      {">IN USE", 0, [](const P& p) { return Table::Cell(count(p.in_use())); }},
      {">OF", 0, [](const P& p) { return Table::Cell(count(p.capacity())); }},
      {">", 1, [&](const P& p) { return Table::Cell(percent(share(p.in_use(), p)), heat(share(p.in_use(), p))); }},
      {"", 3, [&](const P& p) { return Table::Cell(bar(share(p.in_use(), p), kBarWidth), heat(share(p.in_use(), p))); }},
      {">MOST", 2, [](const P& p) { return Table::Cell(count(p.high_water())); }},
      {">REFUSED", 1, [](const P& p) { return Table::Cell(p.refused() == 0 ? "" : count(p.refused()), Color::kRed); }},
  };
  std::vector<const P*> rows;
  for (const P& p : f.total().pools()) rows.push_back(&p);
  return rows.empty() ? "" : fitted(columns, rows, width);
}

std::string reasons(const pb::TopFrame& f, size_t width) {
  using R = pb::ReasonRate;
  std::vector<const R*> rows;
  for (const R& r : f.drops()) rows.push_back(&r);
  for (const R& r : f.flags()) rows.push_back(&r);
  if (rows.empty()) return f.seconds() > 0 ? paint("nothing was dropped, every request ended well", Color::kDim) + "\n" : "";
  const size_t left = rows.size() > kMostReasons ? rows.size() - kMostReasons : 0;
  rows.resize(rows.size() - left);
  const std::vector<Column<R>> columns = {
      {">DROPS/S", 0, [](const R& r) { return Table::Cell(rate(r.rate())); }},
      {"REASON", 0,
       [](const R& r) {
         return Table::Cell(r.name(), r.severity() == "error"     ? Color::kRed
                                      : r.severity() == "warning" ? Color::kYellow
                                                                  : Color::kNone);
       }},
      {"", 1, [](const R& r) { return Table::Cell(r.text(), Color::kDim); }},
  };
  std::string text = fitted(columns, rows, width);
  if (left != 0) text += paint("and " + std::to_string(left) + " more reasons; see millctl drops", Color::kDim) + "\n";
  return text;
}

}  // namespace

size_t visible_width(std::string_view line) {
  size_t n = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\033') {
      while (i < line.size() && line[i] != 'm') ++i;
      continue;
    }
    n += (static_cast<unsigned char>(line[i]) & 0xc0) != 0x80;
  }
  return n;
}

std::string cut_line(std::string_view line, size_t width) {
  std::string out;
  size_t n = 0;
  bool painted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\033') {
      const size_t end = std::min(line.find('m', i), line.size() - 1);
      const std::string_view escape = line.substr(i, end - i + 1);
      painted = escape != "\033[0m";
      out += escape;
      i = end;
      continue;
    }
    const bool begins = (static_cast<unsigned char>(line[i]) & 0xc0) != 0x80;
    if (begins && n == width) {
      if (painted) out += "\033[0m";
      break;
    }
    n += begins;
    out += line[i];
  }
  return out;
}

std::string rate(double v) {
  if (!(v > 0)) return "0";
  if (v < 9.995) return number(v, 2);
  if (v < 99.95) return number(v, 1);
  return count(static_cast<uint64_t>(std::llround(v)));
}

std::string render(const pb::TopFrame& f, const ScreenOptions& o) {
  std::string text = head(f, o);
  if (o.keys) text += paint("q quits, s switches stage accounting", Color::kDim) + "\n";
  if (!f.note().empty()) text += paint(f.note(), f.connected() ? Color::kYellow : Color::kRed) + "\n";
  if (f.connected()) {
    text += counts_line(f);
    if (f.seconds() > 0) text += "\n" + workers(f, o.width) + "\n" + stages(f, o);
    if (const std::string p = pools(f, o.width); !p.empty()) text += "\n" + p;
    if (const std::string r = reasons(f, o.width); !r.empty()) text += "\n" + r;
  }
  if (o.width == 0 && o.height == 0) return text;
  std::string out;
  size_t lines = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    const bool last = o.height != 0 && lines + 1 == o.height;
    if (last && end + 1 < text.size()) {
      out += cut_line(paint("… (a taller terminal shows more)", Color::kDim), o.width == 0 ? SIZE_MAX : o.width) + "\n";
      break;
    }
    const std::string_view line = std::string_view(text).substr(at, end - at);
    out += (o.width == 0 ? std::string(line) : cut_line(line, o.width)) + "\n";
    ++lines;
    at = end + 1;
  }
  return out;
}

}  // namespace millrace::cli
