// Checks a blob before anybody reads it without checks: the loader, for what control published; control, for what it is about to
// publish. Whatever the bytes, nothing outside the span is read and nothing is written. Errors are one sentence that names the
// field.
//
// validate_object checks, in this order: alignment and size of the span; magic, layout version, kind, size, id, checksum; the
// root; then every reference of every struct, depth first: in bounds, aligned, not into the header; every enum and flag in its
// range; every index (filter chain, regex, regex database, route rank, virtual host, hash slot) below its limit; tables that are
// searched are sorted as objects.h says. lib/route's index blob is opaque here: route/… checks its inside.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "lib/base/status.h"
#include "lib/table/objects.h"

namespace millrace::table {

// References may overlap (equal arrays can be stored once), so bounds alone do not limit the work: no object may make the
// validator visit more elements than its size in bytes plus this.
inline constexpr uint64_t kValidatedElementsSlack = 64 * 1024;

// `bytes`: exactly the object, its first byte 8-aligned. `verify_checksum` false only for fuzzing and for bytes just written.
base::Status validate_object(std::span<const uint8_t> bytes, bool verify_checksum = true);

// The root and its references: magic, version, checksum, order (strictly ascending by kind and id: no duplicates), kinds, and
// each object's place within `arena_size` bytes, aligned. Does not look at the objects. `bytes` may be longer than the snapshot.
base::Status validate_snapshot(std::span<const uint8_t> bytes, uint64_t arena_size);
// Bytes a snapshot of `count` references takes.
constexpr uint64_t snapshot_size(uint64_t count) { return sizeof(SnapshotHeader) + count * sizeof(ObjectRef); }

// Struct of a kind, for tables of kinds.
const char* root_struct_name(Kind k);
size_t root_struct_size(Kind k);

}  // namespace millrace::table
