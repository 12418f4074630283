-- KEYS: bucket, published passes. ARGV: 1 if the replicas must confirm the result, else 0; then serial numbers.
-- Returns two lists: the digests, and the values of the published passes. A mark changes both in one step, so this script
-- reads both in one step.
local clock = redis.call('HGET', KEYS[1], '\tc')
if clock and ARGV[1] == '1' then redis.call('HSET', KEYS[1], '\tc', clock) end
local digests, values = {}, {}
for i = 2, #ARGV do
    digests[i - 1] = redis.call('HGET', KEYS[1], '\t#' .. ARGV[i])
    values[i - 1] = redis.call('HGET', KEYS[2], ARGV[i])
end
return { digests, values }
