-- KEYS[1] part of a pass. ARGV: now, devices. Returns the new hint of each: above the one it had.
local hints = {}
for i = 2, #ARGV do
    local last = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or 0)
    hints[i - 1] = string.format('%.0f', math.max(tonumber(ARGV[1]), last + 1))
    redis.call('HSET', KEYS[1], ARGV[i], hints[i - 1])
end
return hints
