-- What the scripts of this folder share: where the wire is, how flows are laid out, how a trial is run and what it says.
--
-- Everything comes from the environment, so that no script has to be edited:
--   PKTGEN_PORT       port of Pktgen that sends and receives                         0
--   PKTGEN_DUT_MAC    MAC address of the device under test (its port on this wire)   no default
--   PKTGEN_CLIENTS    first source address; flows go upwards from it                 10.64.0.1
--   PKTGEN_TARGET     destination address                                           10.63.0.2
--   PKTGEN_DPORT      destination port                                              8080
--   PKTGEN_SECONDS    length of a trial                                             10
--   PKTGEN_RESULT     file for the result, one JSON object a line                   none
local common = {}

local function setting(name, default)
  local value = os.getenv(name)
  if value == nil or value == "" then return default end
  return value
end

function common.settings()
  local s = {
    port = setting("PKTGEN_PORT", "0"),
    dut_mac = setting("PKTGEN_DUT_MAC", nil),
    clients = setting("PKTGEN_CLIENTS", "10.64.0.1"),
    target = setting("PKTGEN_TARGET", "10.63.0.2"),
    dport = tonumber(setting("PKTGEN_DPORT", "8080")),
    seconds = tonumber(setting("PKTGEN_SECONDS", "10")),
    result = setting("PKTGEN_RESULT", nil),
  }
  assert(s.dut_mac ~= nil, "PKTGEN_DUT_MAC: say the MAC address of the device under test")
  assert(s.dut_mac:match("^%x%x:%x%x:%x%x:%x%x:%x%x:%x%x$"), "PKTGEN_DUT_MAC: '" .. s.dut_mac .. "' is not a MAC address")
  assert(tonumber(s.port) ~= nil, "PKTGEN_PORT: a number")
  assert(s.dport ~= nil and s.dport >= 1 and s.dport <= 65535, "PKTGEN_DPORT: 1 to 65535")
  assert(s.seconds ~= nil and s.seconds > 0, "PKTGEN_SECONDS: above 0")
  return s
end

function common.to_number(address)
  local a, b, c, d = address:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  assert(a, "'" .. tostring(address) .. "' is not an IPv4 address")
  return ((tonumber(a) * 256 + tonumber(b)) * 256 + tonumber(c)) * 256 + tonumber(d)
end

function common.to_address(n)
  return string.format("%d.%d.%d.%d", (n >> 24) & 255, (n >> 16) & 255, (n >> 8) & 255, n & 255)
end

-- Source ports that a range walks: an odd number of them. Pktgen steps address and port together with every packet, so the number of different
-- flows is the least common multiple of both counts; an odd one and a power of two have no common factor, so it is their product.
common.first_port, common.last_port = 1024, 65534
common.ports = common.last_port - common.first_port + 1

-- How `flows` flows are laid out: source addresses (a power of two) and source ports of each. At least `flows` of them, exactly so up to 64,511.
function common.layout(flows)
  assert(flows >= 1 and flows == math.floor(flows), "flows: a whole number above 0")
  if flows <= common.ports then return 1, flows end
  local addresses = 2
  while addresses * common.ports < flows do addresses = addresses * 2 end
  return addresses, common.ports
end

-- A range on the port: so many flows of `proto` packets of `size` bytes (with the CRC) towards the target.
function common.range(s, proto, size, flows)
  local addresses, ports = common.layout(flows)
  local first = common.to_number(s.clients)
  pktgen.range.dst_mac(s.port, "start", s.dut_mac)
  pktgen.range.ip_proto(s.port, proto)
  for name, value in pairs({
    src_ip = { common.to_address(first), common.to_address(first), common.to_address(first + addresses - 1), addresses > 1 and "0.0.0.1" or "0.0.0.0" },
    dst_ip = { s.target, s.target, s.target, "0.0.0.0" },
    src_port = { common.first_port, common.first_port, common.first_port + ports - 1, ports > 1 and 1 or 0 },
    dst_port = { s.dport, s.dport, s.dport, 0 },
    pkt_size = { size, size, size, 0 },
  }) do
    for i, what in ipairs({ "start", "min", "max", "inc" }) do
      pktgen.range[name](s.port, what, value[i])
    end
  end
  pktgen.set(s.port, "count", 0) -- until it is stopped
  pktgen.set_range(s.port, "on")
  return addresses * ports
end

-- TCP flags of a range are only to be had from a command file.
function common.range_tcp_flags(s, flags)
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(string.format("range %s tcp flags clr,%s\n", s.port, flags))
  file:close()
  local ok, message = pcall(pktgen.load, name)
  os.remove(name)
  if not ok then error(message) end
end

-- Packets of a port since the last clear. Releases of Pktgen differ: portStats(port, "port") with flat fields, later portStats(port) with `curr`.
function common.counters(s)
  local ok, all = pcall(pktgen.portStats, s.port, "port")
  if not ok then all = pktgen.portStats(s.port) end
  local one = all[tonumber(s.port)]
  one = one.curr or one
  return { sent = one.opackets, received = one.ipackets }
end

-- Sends at `percent` of line rate for the length of a trial; waits for what is under way. Rates are packets per second.
function common.trial(s, percent)
  pktgen.stop(s.port)
  pktgen.set(s.port, "rate", percent)
  pktgen.clear(s.port)
  pktgen.delay(500)
  local before = common.counters(s)
  pktgen.start(s.port)
  pktgen.delay(math.floor(s.seconds * 1000))
  pktgen.stop(s.port)
  pktgen.delay(1000)
  local after = common.counters(s)
  local sent, received = after.sent - before.sent, after.received - before.received
  return { percent = percent, sent = sent, received = received, sent_pps = sent / s.seconds, received_pps = received / s.seconds,
           lost = sent > 0 and math.max(0, sent - received) / sent or 0 }
end

-- RFC 2544 26.1: the highest rate at which no more than `loss` of the packets is lost, by bisection of the share of line rate to half a percent.
function common.no_drop_rate(s, loss)
  local best = common.trial(s, 100)
  if best.lost <= loss then return best end
  local low, high, found = 0, 100, nil
  while high - low > 0.5 do
    local t = common.trial(s, (low + high) / 2)
    if t.sent > 0 and t.lost <= loss then
      low, found = t.percent, t
    else
      high = t.percent
    end
  end
  return found
end

-- One line on the screen, and one JSON object in the result file.
function common.say(s, case, fields)
  local line, json = string.format("%-28s", case), string.format('{"case": "%s"', case)
  for _, f in ipairs(fields) do
    local name, value = f[1], f[2]
    local whole = value == math.floor(value)
    line = line .. string.format(whole and "  %s %d" or "  %s %.4f", name, value)
    json = json .. string.format(whole and ', "%s": %d' or ', "%s": %.6f', name, value)
  end
  print(line)
  if s.result then
    local file = assert(io.open(s.result, "a"))
    file:write(json, "}\n")
    file:close()
  end
end

-- Whatever happens, the port ends silent and without its range.
function common.guarded(s, work)
  local ok, message = pcall(work)
  pktgen.stop(s.port)
  pktgen.set_range(s.port, "off")
  if not ok then error(message, 0) end
end

return common
