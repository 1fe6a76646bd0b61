-- A stand-in of Pktgen's Lua API for tests: a wire on which `capacity` packets a second come back and the rest is lost. It knows the functions that
-- perf/pktgen may use, with Pktgen's number of arguments; every other name, and every wrong number of arguments, is an error, as it is there.
--   lua pktgen_stand_in.lua SCRIPT old|new CAPACITY LINE_RATE
local script, release, capacity, line_rate = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])

local state = { rate = 100, sending = false, sent = 0, received = 0, ranges = {}, set = {}, seconds = 0, log = {} }

local function call(name, count, f)
  return function(...)
    assert(select("#", ...) == count, name .. ": " .. select("#", ...) .. " arguments, not " .. count)
    return f(...)
  end
end

local range = {}
for _, field in ipairs({ "dst_mac", "src_ip", "dst_ip", "src_port", "dst_port", "pkt_size" }) do
  range[field] = call("range." .. field, 3, function(port, what, value)
    assert(({ start = true, min = true, max = true, inc = true })[what], "range." .. field .. ": " .. what)
    assert(port == "0")
    if field:match("port$") or field == "pkt_size" then assert(math.type(value) == "integer", field .. ": an integer") end
    if field:match("ip$") then assert(value:match("^%d+%.%d+%.%d+%.%d+$"), field .. ": an address") end
    state.ranges[field .. "." .. what] = value
  end)
end
range.ip_proto = call("range.ip_proto", 2, function(_, proto) state.ranges.proto = proto; state.ranges.flags = nil end)

pktgen = {
  range = range,
  set = call("set", 3, function(_, what, value)
    assert(what == "rate" or what == "count", "set " .. what)
    if what == "rate" then
      assert(value > 0 and value <= 100)
      state.rate = value
    end
  end),
  set_range = call("set_range", 2, function(_, value) state.range_on = value == "on" end),
  load = call("load", 1, function(path)
    for line in io.lines(path) do
      state.ranges.flags = assert(line:match("^range 0 tcp flags (.*)$"), "command: " .. line)
    end
  end),
  clear = call("clear", 1, function() state.sent, state.received = 0, 0 end),
  start = call("start", 1, function()
    assert(state.range_on, "started without its range")
    state.sending = true
    state.log[#state.log + 1] = string.format("%s %s %d flags=%s src=%s-%s ports=%d-%d rate=%g", state.ranges.proto, state.ranges["dst_ip.start"],
      state.ranges["pkt_size.start"], tostring(state.ranges.flags), state.ranges["src_ip.min"], state.ranges["src_ip.max"],
      state.ranges["src_port.min"], state.ranges["src_port.max"], state.rate)
  end),
  stop = call("stop", 1, function() state.sending = false end),
  delay = call("delay", 1, function(ms)
    assert(math.type(ms) == "integer")
    if not state.sending then return end
    local n = math.floor(line_rate * state.rate / 100 * ms / 1000)
    state.sent = state.sent + n
    state.received = state.received + math.min(n, math.floor(capacity * ms / 1000))
  end),
  portStats = function(...)
    assert(select("#", ...) == (release == "old" and 2 or 1), "portStats, wrong number of arguments")
    local flat = { ipackets = state.received, opackets = state.sent }
    return { [0] = release == "old" and flat or { curr = flat }, n = 1 }
  end,
}
setmetatable(pktgen, { __index = function(_, name) error("pktgen." .. name .. " does not exist") end })
setmetatable(range, { __index = function(_, name) error("pktgen.range." .. name .. " does not exist") end })

local ok, message = pcall(dofile, script)
assert(not state.sending and not state.range_on, "the port is left silent and without its range")
for _, line in ipairs(state.log) do print("START " .. line) end
if not ok then
  print("ERROR " .. tostring(message))
  os.exit(1)
end
