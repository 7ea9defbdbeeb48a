import neostandard from 'neostandard'
import tseslint from 'typescript-eslint'

export default [
  ...neostandard({ ts: true, ignores: ['dist', '.tap', 'node_modules'] }),
  {
    files: ['**/*.ts'],
    rules: {
      // What can not be broken is what is said word for word.
      '@stylistic/max-len': ['error', {
        code: 120, ignoreStrings: true, ignoreTemplateLiterals: true, ignoreRegExpLiterals: true, ignoreUrls: true
      }],
      '@stylistic/member-delimiter-style': ['error', {
        multiline: { delimiter: 'none' }, singleline: { delimiter: 'comma', requireLast: false }
      }]
    }
  },
  // Scripts of a page say in comments what they take from each other and give to each other.
  {
    files: ['src/pages/**/*.js'],
    languageOptions: {
      sourceType: 'script',
      globals: { confirm: false, CSS: false, EventSource: false, isSecureContext: false, location: false }
    }
  },
  // A promise nobody awaits is a task nobody settles: the rules below need types, so they hold for src alone
  // (tap awaits its subtests by itself).
  {
    files: ['src/**/*.ts'],
    plugins: { '@typescript-eslint': tseslint.plugin },
    languageOptions: { parser: tseslint.parser, parserOptions: { project: './tsconfig.json' } },
    rules: {
      'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true }],
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error'
    }
  }
]
