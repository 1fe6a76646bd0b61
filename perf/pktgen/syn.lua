-- How many SYNs a second a listener stands, and how many it answers: from one flow to a million, all with another source port or address, none ever
-- completed. What comes back are SYN-ACKs (cookies beyond the limit of half-open connections) and, later, their repetitions; more answers than SYNs
-- are those. Run it beside millrace-load at a steady rate: what that loses is the point.
--   PKTGEN_TARGET, PKTGEN_DPORT: the listener's address and port
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local common = require("common")

local kFlows = { 1, 1000, 64000, 1000000 }
local kShares = { 1, 10, 100 } -- percent of line rate
local kSize = 64

local s = common.settings()
common.guarded(s, function()
  for _, wanted in ipairs(kFlows) do
    local flows = common.range(s, "tcp", kSize, wanted)
    common.range_tcp_flags(s, "syn")
    for _, percent in ipairs(kShares) do
      local t = common.trial(s, percent)
      common.say(s, "syn-" .. wanted, {
        { "flows", flows }, { "percent", percent }, { "syn_pps", t.sent_pps }, { "answers_pps", t.received_pps } })
    end
  end
end)
