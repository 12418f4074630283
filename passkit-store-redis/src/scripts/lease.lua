-- KEYS[1] lease of a type. ARGV: worker, milliseconds. Returns 1 if the worker has it from now on, 0 if another does.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
