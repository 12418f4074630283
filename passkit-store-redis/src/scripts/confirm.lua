-- KEYS[1] device or bucket. ARGV: the field of its clock, then the fields to read, or none for all of them. Returns what
-- HMGET or HGETALL does. Writes the clock as it is, so that the replicas are asked to confirm what is returned.
local clock = redis.call('HGET', KEYS[1], ARGV[1])
if clock then redis.call('HSET', KEYS[1], ARGV[1], clock) end
if #ARGV == 1 then return redis.call('HGETALL', KEYS[1]) end
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
