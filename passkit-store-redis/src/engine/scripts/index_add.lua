-- KEYS[1] part of an index. ARGV: now, devices.
-- Gives the entry of each device a new number, above its old one. Returns the numbers.
local numbers = {}
for i = 2, #ARGV do
    local last = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or 0)
    numbers[i - 1] = string.format('%.0f', math.max(tonumber(ARGV[1]), last + 1))
    redis.call('HSET', KEYS[1], ARGV[i], numbers[i - 1])
end
return numbers
