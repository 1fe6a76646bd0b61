-- The raw packet rate of a wire and of whatever sends packets back at its other end (millrace-load --role forward, or testpmd with 5tswap): frames of
-- 64, 512 and 1500 bytes, first at line rate, then the highest rate without loss. It is the limit beside which every figure with TCP is put.
--   pktgen … -- -P -m "[1:2].0" -f perf/pktgen/packet_rate.lua
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local common = require("common")

local kSizes = { 64, 512, 1500 } -- with the CRC, as RFC 2544 counts them
local kFlows = 4096
local kLoss = 0 -- share

local s = common.settings()
common.guarded(s, function()
  for _, size in ipairs(kSizes) do
    local flows = common.range(s, "udp", size, kFlows)
    local full = common.trial(s, 100)
    common.say(s, "packet-rate-" .. size .. "B", {
      { "flows", flows }, { "sent_pps", full.sent_pps }, { "received_pps", full.received_pps }, { "lost", full.lost } })
    local best = common.no_drop_rate(s, kLoss)
    if best then
      common.say(s, "no-drop-rate-" .. size .. "B", { { "percent", best.percent }, { "received_pps", best.received_pps } })
    else
      common.say(s, "no-drop-rate-" .. size .. "B", { { "percent", 0 }, { "received_pps", 0 } })
    end
  end
end)
