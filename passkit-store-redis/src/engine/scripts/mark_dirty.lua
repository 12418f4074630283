-- KEYS[1] dirty buckets of a type. ARGV: buckets.
-- Marks the buckets dirty, with the current time of the server.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
for i = 1, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], now) end
return 1
