-- KEYS[1] bucket. ARGV: a value for the clock, then fields.
-- Advances the bucket's clock to this value, unless the clock is already higher. Returns the values of the fields. The
-- script always writes, so that the replicas must confirm what it returns.
local clock = math.max(tonumber(redis.call('HGET', KEYS[1], '\tc') or 0), tonumber(ARGV[1]))
redis.call('HSET', KEYS[1], '\tc', string.format('%.0f', clock))
local values = {}
for from = 2, #ARGV, 1000 do
    for _, value in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV, from, math.min(from + 999, #ARGV)))) do
        values[#values + 1] = value
    end
end
return values
