-- KEYS[1] hash. ARGV: a field to write, then the fields to read, or none to read all.
-- Returns the result of HMGET or HGETALL. Writes the first field without changing it, so that the replicas must confirm the
-- result.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then redis.call('HSET', KEYS[1], ARGV[1], value) end
if #ARGV == 1 then return redis.call('HGETALL', KEYS[1]) end
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
