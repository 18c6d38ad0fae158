{
  # node-gyp rebuild --lustrite_asan=1 (address and undefined behaviour) or --lustrite_tsan=1: sanitizer builds.
  'variables': { 'lustrite_asan%': 0, 'lustrite_tsan%': 0 },
  'target_defaults': {
    'cflags': [ '-Wall', '-Wextra', '-Werror', '-fvisibility=hidden' ],
    # g++ 12 warns of overlapping copies inside std::string's own operator+ (GCC bug 105651).
    'cflags_cc': [ '-std=c++20', '-Wno-restrict' ],
    'cflags_cc!': [ '-std=gnu++17', '-std=gnu++20' ],
    'conditions': [
      [ 'lustrite_asan==1', {
        'cflags': [ '-fsanitize=address,undefined', '-fno-omit-frame-pointer', '-g' ],
        'ldflags': [ '-fsanitize=address,undefined' ],
      } ],
      [ 'lustrite_tsan==1', {
        'cflags': [ '-fsanitize=thread', '-fno-omit-frame-pointer', '-g' ],
        'ldflags': [ '-fsanitize=thread' ],
      } ],
    ],
  },
  'targets': [
    {
      'target_name': 'lustrite',
      'include_dirs': [ '<!(node -p "require(\'node-addon-api\').include_dir")' ],
      'defines': [ 'NAPI_VERSION=8', 'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS', '_GNU_SOURCE' ],
      'cflags_cc': [ '-fno-exceptions' ],
      'sources': [
        'native/store/fid.cc',
        'native/binding/addon.cc',
        'native/binding/no_session.cc',
        'native/binding/store_object.cc',
      ],
    },
    {
      'target_name': 'lfs',
      'type': 'executable',
      'cflags': [ '-std=c11', '-O2' ],
      'defines': [ '_GNU_SOURCE' ],
      'sources': [
        'native/lfs/fid.c',
        'native/lfs/hsm_request.c',
        'native/lfs/hsm_state.c',
        'native/lfs/lfs.c',
        'native/lfs/mount.c',
        'native/lfs/path2fid.c',
        'native/lfs/socket.c',
      ],
    },
  ],
}
