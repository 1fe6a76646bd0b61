-- What a growing number of flows costs: forwarding of 64-byte frames with 1 to 16 million different source addresses and ports. Against a device that only
-- swaps addresses the rate stays; where every flow needs a look at a table that outgrows a cache, it falls. The difference is the table's.
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local common = require("common")

local kFlows = { 1, 100, 10000, 64000, 1000000, 16000000 }
local kSize = 64

local s = common.settings()
common.guarded(s, function()
  for _, wanted in ipairs(kFlows) do
    local flows = common.range(s, "udp", kSize, wanted)
    local t = common.trial(s, 100)
    common.say(s, "flows-" .. wanted, { { "flows", flows }, { "sent_pps", t.sent_pps }, { "received_pps", t.received_pps }, { "lost", t.lost } })
  end
end)
