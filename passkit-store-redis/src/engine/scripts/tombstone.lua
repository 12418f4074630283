-- KEYS[1] device. ARGV: the field that an index entry belongs to, the number of the entry, how many seconds to keep the
-- tombstone of a removed device.
-- Returns 0 if the field exists. Otherwise raises the tombstone at least to the number and returns 1. From then on, no
-- registration can use the entry.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
local tombstone = math.max(tonumber(redis.call('HGET', KEYS[1], 'x') or 0), tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', tombstone))
if redis.call('HEXISTS', KEYS[1], 't') == 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
