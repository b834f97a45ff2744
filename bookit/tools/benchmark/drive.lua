-- The script that wrk runs. It sends the requests of a file in turn, starts again at the end of the
-- file, and counts the responses by status. wrk must use a single thread, because each thread would
-- send the whole file.

local requests, last = {}, 0
local thread

statuses = {}

function setup(it)
   thread = it
end

function init(args)
   local file = assert(io.open(args[1], "rb"))
   for request in file:read("*a"):gmatch("[^%z]+") do
      requests[#requests + 1] = request
   end
   file:close()
end

function request()
   last = last % #requests + 1
   return requests[last]
end

function response(status)
   statuses[status] = (statuses[status] or 0) + 1
end

function done(summary, latency)
   local counts = {}
   for status, count in pairs(thread:get("statuses")) do
      counts[#counts + 1] = string.format('"%d": %d', status, count)
   end
   local errors = summary.errors
   print(string.format(
      'RESULT {"seconds": %f, "p50_ms": %f, "p99_ms": %f, "failures": %d, "statuses": {%s}}',
      summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.connect + errors.read + errors.write + errors.timeout, table.concat(counts, ", ")
   ))
end
