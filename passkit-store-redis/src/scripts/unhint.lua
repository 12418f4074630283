-- KEYS[1] part of a pass. ARGV: devices and hints. Removes each hint that is still the one given.
for i = 1, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 1
