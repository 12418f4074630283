-- KEYS[1] device. ARGV: field, hint, seconds. Returns 1 if no registration stands behind the hint, and from now on none
-- can come to; 0 if one does.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
local condemned = math.max(tonumber(redis.call('HGET', KEYS[1], 'x') or 0), tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', condemned))
if redis.call('HEXISTS', KEYS[1], 't') == 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
