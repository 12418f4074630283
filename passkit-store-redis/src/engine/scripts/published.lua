-- KEYS: bucket, published passes. ARGV: 1 to have replicas confirm what is returned, or 0; serial numbers. Returns the digests,
-- and the other values, which one mark changes together.
local clock = redis.call('HGET', KEYS[1], '\tc')
if clock and ARGV[1] == '1' then redis.call('HSET', KEYS[1], '\tc', clock) end
local digests, values = {}, {}
for i = 2, #ARGV do
    digests[i - 1] = redis.call('HGET', KEYS[1], '\t#' .. ARGV[i])
    values[i - 1] = redis.call('HGET', KEYS[2], ARGV[i])
end
return { digests, values }
