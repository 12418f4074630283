-- KEYS[1] part of an index. ARGV: devices, each with a number.
-- Removes the entry of a device if it still has that number.
for i = 1, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 1
