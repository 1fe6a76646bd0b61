// Text of the command line to values: each function takes what the user wrote and answers with the value or with what is wrong
// with it, as the rest of a sentence that begins with the option's name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/ip_address.h"
#include "lib/base/status.h"
#include "lib/base/time.h"
#include "perf/load/options.h"

namespace millrace::load {

// Whole numbers, with k, M or G for thousands, millions, billions: "64", "100k", "1.5M". Within low … high.
base::Result<uint64_t> parse_count(std::string_view text, uint64_t low, uint64_t high);
// Bytes, with K, M or G (also KB, KiB, …) for 1024, 1024², 1024³: "64", "16K", "1MB". Within low … high.
base::Result<uint64_t> parse_bytes(std::string_view text, uint64_t low, uint64_t high);
// A real number with k, M or G: "250000", "1.2M". Within low … high.
base::Result<double> parse_real(std::string_view text, double low, double high);
// Seconds, or a number with us, ms, s or m: "5", "0.25", "300us". Within low … high.
base::Result<base::TimeNs> parse_duration(std::string_view text, base::TimeNs low, base::TimeNs high);
// "10.64.0.0/16", "fd00::1/64": the length of the prefix is asked for.
base::Result<Network> parse_network(std::string_view text);
base::Result<base::IpAddress> parse_address(std::string_view text);
// "10.1.2.3:80", "[fd00::1]:80"
base::Result<Endpoint> parse_endpoint(std::string_view text);
// ADDR[-ADDR]:PORT[-PORT]; IPv6 addresses in brackets: "[fd00::1]-[fd00::9]:80"
base::Result<ServerRange> parse_server_range(std::string_view text);

// Addresses from first to last, both included; UINT64_MAX when there are more than 2^63. Same family, first <= last.
uint64_t addresses_between(const base::IpAddress& first, const base::IpAddress& last);
// Addresses of a network, UINT64_MAX when there are more than 2^63.
uint64_t addresses_of(const Network& n);
bool contains(const Network& n, const base::IpAddress& a);
std::string to_string(const Network& n);

}  // namespace millrace::load
