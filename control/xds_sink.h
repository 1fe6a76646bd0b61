// Where an xDS subscription delivers to, and who says what is asked for by name. The stream (xds_stream.h) and the files
// (xds_files.h) call, the dynamic configuration (dynamic_config.h) answers; a test puts itself in either place.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "control/xds_config.h"
#include "control/xds_engine.h"

namespace millrace::control {

// A resource that is asked for by name, of a file.
struct XdsFileWant {
  XdsType type;
  std::string name;
  ResourceFile file;
  friend auto operator<=>(const XdsFileWant&, const XdsFileWant&) = default;
};

class XdsSink {
 public:
  virtual ~XdsSink() = default;
  // Takes what is good of an update, resource by resource, and returns what it could not take, each with the full path of the
  // field and why. Returns when the good part is stored in the model; it need not be acknowledged by the workers yet.
  // May be called from the thread of any stream; calls exclude each other inside.
  virtual std::vector<XdsRejection> apply(const XdsUpdate& update) = 0;
  // A name (or, with "", the whole type) was not answered within initial_fetch_timeout: whoever waits for it goes on without.
  virtual void expired(XdsType type, std::string_view name) = 0;
  // Names to ask servers for now, of a type that is asked for by name (endpoints, routes, secrets). Asked again after each
  // apply() and whenever on_wanted_changed() of the stream was called (an edit by hand may add a cluster that wants endpoints).
  virtual std::set<std::string> wanted(XdsType type) = 0;
  // The same of files: by type and name.
  virtual std::vector<XdsFileWant> wanted_files() = 0;
  // The same as at the last look: wanted() and wanted_files() answer as they did then, and need not be asked (it costs as much as
  // there are names).
  virtual uint64_t wanted_generation() = 0;
};

}  // namespace millrace::control
