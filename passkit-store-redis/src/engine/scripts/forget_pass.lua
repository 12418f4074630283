-- KEYS: bucket, published passes, pending changes, the index of these changes by age. ARGV: now, the serial number of a pass.
-- Removes the last mark, the published content and the pending change of the pass. If the date of the pass is not past, the
-- script changes nothing and returns 0. Otherwise it returns 1.
local serial = ARGV[2]
local date = string.match(redis.call('HGET', KEYS[1], serial) or '', '^%d+:(%d+)$')
if date and tonumber(date) >= math.floor(tonumber(ARGV[1]) / 1000000) then return 0 end
redis.call('HDEL', KEYS[1], serial, '\t#' .. serial)
redis.call('HDEL', KEYS[2], serial)
redis.call('HDEL', KEYS[3], serial)
redis.call('ZREM', KEYS[4], serial)
-- An earlier run may have removed all of this without confirmation. A write makes the replicas confirm that.
local clock = redis.call('HGET', KEYS[1], '\tc')
if clock then redis.call('HSET', KEYS[1], '\tc', clock) end
return 1
