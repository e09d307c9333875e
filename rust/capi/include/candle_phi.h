/*
 * candle-phi for C: Microsoft's Phi models from GGUF files. docs/c.md shows the use.
 *
 * Written by cbindgen from rust/capi/src: `make capi-header`. Do not edit.
 *
 * What the library promises, of every function:
 *
 * - NULL is never followed. Where a pointer must not be NULL, the call ends with
 *   CANDLE_PHI_STATUS_INVALID_ARGUMENT; a function that frees takes NULL and does nothing.
 * - It returns. A bug of the engine is a status and a text, not the end of the process, and nothing
 *   is printed.
 * - What it is given belongs to the caller, and may be freed when it has returned. What it gives
 *   names the function that frees it.
 * - A call that fails leaves NULL, or nothing, where its result would be.
 *
 * What the caller promises:
 *
 * - A pointer that is not NULL points to what its type says, for the length that is given with it, and
 *   nobody writes there during the call.
 * - A handle was given by this library, and was not freed. Freeing one twice, or using one that was
 *   freed, is undefined, as it is with free().
 * - Texts are UTF-8. They have lengths, and need not end with NUL.
 * - The library is not unloaded, and a process that forks uses it in the child for sessions of the
 *   child's own only: its threads stay in the parent.
 *
 * "Threads" says of each function which threads may call it, and when.
 */

#ifndef CANDLE_PHI_H
#define CANDLE_PHI_H

#include <stddef.h>
#include <stdint.h>

/**
 * How a call ended. Numbers keep their meaning from version to version; new ones may come.
 */
enum CandlePhiStatus
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It did what it should.
     */
    CANDLE_PHI_STATUS_OK = 0,
    /**
     * NULL where something must be, text that is not UTF-8, a pointer that is not aligned, or a size that no version of
     * the struct has. A mistake in the program.
     */
    CANDLE_PHI_STATUS_INVALID_ARGUMENT = 1,
    /**
     * There is no model file at the path.
     */
    CANDLE_PHI_STATUS_MODEL_NOT_FOUND = 2,
    /**
     * The file is damaged, cut short, contradicts itself, or is no GGUF file.
     */
    CANDLE_PHI_STATUS_INVALID_MODEL = 3,
    /**
     * The file is whole, but of a kind that this engine does not run.
     */
    CANDLE_PHI_STATUS_UNSUPPORTED_MODEL = 4,
    /**
     * The device does not exist, is not compiled in, or failed.
     */
    CANDLE_PHI_STATUS_DEVICE = 5,
    /**
     * An option is out of its range.
     */
    CANDLE_PHI_STATUS_INVALID_OPTION = 6,
    /**
     * The prompt does not fit into the context.
     */
    CANDLE_PHI_STATUS_CONTEXT_LENGTH = 7,
    /**
     * The session was closed. No function of this version ends with it.
     */
    CANDLE_PHI_STATUS_SESSION_CLOSED = 8,
    /**
     * Another call is using the session: on another thread, or the one whose callback this is.
     */
    CANDLE_PHI_STATUS_SESSION_BUSY = 9,
    /**
     * A download failed. No function of this version ends with it.
     */
    CANDLE_PHI_STATUS_DOWNLOAD = 10,
    /**
     * The computation failed, or the engine has a bug: the text says which.
     */
    CANDLE_PHI_STATUS_INFERENCE = 11,
    /**
     * Loading was cancelled. A generation that is cancelled ends with CANDLE_PHI_STATUS_OK and its finish reason.
     */
    CANDLE_PHI_STATUS_CANCELLED = 12,
    /**
     * The machine has not as much memory to give as is needed: take a smaller `n_ctx`, or another `kv_dtype`.
     */
    CANDLE_PHI_STATUS_INSUFFICIENT_MEMORY = 13,
    /**
     * There is no saved conversation at the path. No function of this version ends with it.
     */
    CANDLE_PHI_STATUS_CONVERSATION_NOT_FOUND = 14,
    /**
     * A conversation cannot be written to a file, or read from it. No function of this version ends with it.
     */
    CANDLE_PHI_STATUS_CONVERSATION_FILE = 15,
    /**
     * A saved conversation cannot go on in the session. No function of this version ends with it.
     */
    CANDLE_PHI_STATUS_SAVED_CONVERSATION = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum CandlePhiStatus CandlePhiStatus;
#else
typedef int32_t CandlePhiStatus;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a generation ended.
 */
enum CandlePhiFinishReason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The model ended its answer, or one of the stop texts or stop tokens came.
     */
    CANDLE_PHI_FINISH_REASON_STOP = 1,
    /**
     * `max_tokens` were generated, or the context is full.
     */
    CANDLE_PHI_FINISH_REASON_LENGTH = 2,
    /**
     * A token or a callback cancelled it.
     */
    CANDLE_PHI_FINISH_REASON_CANCELLED = 3,
    /**
     * Its time was over.
     */
    CANDLE_PHI_FINISH_REASON_TIMEOUT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum CandlePhiFinishReason CandlePhiFinishReason;
#else
typedef int32_t CandlePhiFinishReason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Who speaks in a message.
 */
enum CandlePhiRole
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Instructions in front of the conversation.
     */
    CANDLE_PHI_ROLE_SYSTEM = 1,
    /**
     * The person.
     */
    CANDLE_PHI_ROLE_USER = 2,
    /**
     * The model.
     */
    CANDLE_PHI_ROLE_ASSISTANT = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum CandlePhiRole CandlePhiRole;
#else
typedef int32_t CandlePhiRole;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Stops the calls that it was given to, from any thread. Once cancelled it stays so, and also stops a call that begins
 * later; candle_phi_cancel_token_reset makes it good for the next.
 */
typedef struct CandlePhiCancelToken CandlePhiCancelToken;

/**
 * What a generation gave. It never changes.
 */
typedef struct CandlePhiCompletion CandlePhiCompletion;

/**
 * Weights, tokenizer and chat template of one file. It never changes, and any number of sessions on any threads share it.
 */
typedef struct CandlePhiModel CandlePhiModel;

/**
 * A conversation with a model: what was said, and what was computed of it. One call at a time uses it.
 */
typedef struct CandlePhiSession CandlePhiSession;

/**
 * UTF-8 that belongs to somebody else: a caller's argument, or a part of a handle. It need not end with NUL.
 */
typedef struct {
    /**
     * The first byte; may be NULL where `len` is 0.
     */
    const char *data;
    /**
     * How many bytes.
     */
    size_t len;
} CandlePhiStr;

/**
 * UTF-8 that a function gave to its caller, who frees it with candle_phi_text_free and changes nothing in it.
 */
typedef struct {
    /**
     * The first byte; NULL where nothing was given. A NUL follows behind the last one.
     */
    char *data;
    /**
     * How many bytes, without that NUL.
     */
    size_t len;
} CandlePhiText;

/**
 * Token ids that a function gave to its caller, who frees them with candle_phi_tokens_free and keeps `len` as it is.
 */
typedef struct {
    /**
     * The first id; NULL where there are none.
     */
    uint32_t *data;
    /**
     * How many.
     */
    size_t len;
} CandlePhiTokens;

/**
 * How to load a model. Texts that are empty leave the choice to the library.
 *
 * docs/reference/options.md lists the values, ranges and defaults of all options.
 */
typedef struct {
    /**
     * sizeof(CandlePhiLoadOptions); candle_phi_load_options_init sets it.
     */
    size_t size;
    /**
     * Where to compute: "auto", or a device by its name, such as "cpu" or "cuda:0"; docs/devices.md has all names.
     */
    CandlePhiStr device;
    /**
     * What computes: "auto", "kernels" or "candle".
     */
    CandlePhiStr executor;
    /**
     * The chat format, in place of the template that the file brings: "phi3", for example.
     */
    CandlePhiStr chat_format;
    /**
     * The path of a tokenizer.json to use in place of the file's own vocabulary.
     */
    CandlePhiStr tokenizer;
    /**
     * Stops loading; NULL for none.
     */
    const CandlePhiCancelToken *cancel;
    /**
     * How many positions a position sees, itself included; 0 for all before it; less than 0 (the default) for what the file
     * says.
     */
    int64_t sliding_window;
    /**
     * Not 0 (the default): read the weights in the mapped file, which nobody may cut short meanwhile. 0: read the file into
     * memory.
     */
    int32_t mmap;
    /**
     * Not 0: read all of the file while loading, so that the first answer doesn't wait for the disk.
     */
    int32_t prefault;
    /**
     * Not 0: keep the file in memory, as far as the system lets.
     */
    int32_t mlock;
    /**
     * Not 0 (the default): control tokens swallow the white space behind them, as Phi-3's do since July 2024.
     */
    int32_t rstrip_control_tokens;
} CandlePhiLoadOptions;

/**
 * Facts about a model. The texts are the model's, and good for as long as it.
 */
typedef struct {
    /**
     * The model's name; empty where the file has none.
     */
    CandlePhiStr name;
    /**
     * The architecture, as the file names it.
     */
    CandlePhiStr architecture;
    /**
     * The mixture of tensor types, "Q4_K_M" and the like.
     */
    CandlePhiStr quantization;
    /**
     * What messages are written with; empty where the file has no chat template, and candle_phi_chat is an error.
     */
    CandlePhiStr chat_format;
    /**
     * How many weights there are.
     */
    uint64_t parameter_count;
    /**
     * Bytes of the file.
     */
    uint64_t file_size_bytes;
    /**
     * Bytes of the weights.
     */
    uint64_t weights_bytes;
    /**
     * The longest context that the model was made for, in tokens.
     */
    uint64_t context_length;
    /**
     * How many token ids there are.
     */
    uint64_t vocabulary_size;
    /**
     * How long loading took.
     */
    double load_s;
} CandlePhiModelInfo;

/**
 * How to make a session. Zeros and empty texts leave the choice to the library.
 *
 * docs/reference/options.md lists the values, ranges and defaults of all options.
 */
typedef struct {
    /**
     * sizeof(CandlePhiSessionOptions); candle_phi_session_options_init sets it.
     */
    size_t size;
    /**
     * How many tokens of a conversation there is room for; 0 for the model's own number, at most 4,096. Memory is taken as
     * it is used.
     */
    size_t n_ctx;
    /**
     * How many threads compute; 0 for all cores that the process may use.
     */
    size_t n_threads;
    /**
     * How many tokens of a prompt are computed at once; 0 to choose.
     */
    size_t prefill_chunk;
    /**
     * The type that keys and values are kept in: "f16" (the default), "f32" or "q8_0", which takes half the memory.
     */
    CandlePhiStr kv_dtype;
    /**
     * The instruction set level that computes, one that the processor has. Empty for the environment variable
     * CANDLE_PHI_ISA, or the best.
     */
    CandlePhiStr isa;
    /**
     * Which of LongRoPE's factors are used: "auto" (the default), "short" or "long".
     */
    CandlePhiStr rope_factors;
} CandlePhiSessionOptions;

/**
 * A token's logit is moved by so much before it is drawn.
 */
typedef struct {
    /**
     * The token.
     */
    uint32_t token;
    /**
     * Added to its logit; minus infinity bans it.
     */
    float bias;
} CandlePhiLogitBias;

/**
 * What to generate and when to stop. candle_phi_generation_options_init fills in the defaults.
 *
 * docs/reference/options.md lists the values, ranges and defaults of all options.
 */
typedef struct {
    /**
     * sizeof(CandlePhiGenerationOptions); candle_phi_generation_options_init sets it.
     */
    size_t size;
    /**
     * The most tokens to generate; 0 (the default) goes on until the model ends, or the context is full.
     */
    size_t max_tokens;
    /**
     * End tokens are not drawn before this many tokens.
     */
    size_t min_tokens;
    /**
     * Only so many of the most likely tokens are drawn from; 0 (the default) for all.
     */
    size_t top_k;
    /**
     * Over how many of the last generated tokens penalties look (64).
     */
    size_t repeat_last_n;
    /**
     * Texts that end the generation and are not a part of it.
     */
    const CandlePhiStr *stop;
    /**
     * How many there are.
     */
    size_t n_stop;
    /**
     * Token ids that end the generation besides the model's own.
     */
    const uint32_t *stop_token_ids;
    /**
     * How many there are.
     */
    size_t n_stop_token_ids;
    /**
     * Logits to move.
     */
    const CandlePhiLogitBias *logit_bias;
    /**
     * How many there are.
     */
    size_t n_logit_bias;
    /**
     * Stops the generation from another thread, which ends with CANDLE_PHI_FINISH_REASON_CANCELLED; NULL for none.
     */
    const CandlePhiCancelToken *cancel;
    /**
     * After so many seconds the generation ends as it is; 0 (the default) sets no limit.
     */
    double timeout_s;
    /**
     * 0 takes the most likely token always; 1 (the default) draws as the model's probabilities are.
     */
    double temperature;
    /**
     * Only the most likely tokens that together have this probability are drawn from; 1 (the default) for all.
     */
    double top_p;
    /**
     * Tokens that are less likely than this share of the likeliest are not drawn; 0 (the default) for none.
     */
    double min_p;
    /**
     * The seed of the draw, where `has_seed` is not 0.
     */
    uint64_t seed;
    /**
     * Not 0: draw with `seed`. 0 (the default): with a seed that the completion reports.
     */
    int32_t has_seed;
    /**
     * Not 0: go on past the model's end tokens.
     */
    int32_t ignore_eos;
    /**
     * Divides the logits of tokens that were generated lately; 1 (the default) is off.
     */
    float repetition_penalty;
    /**
     * Subtracted once from the logits of tokens that were generated lately.
     */
    float presence_penalty;
    /**
     * Subtracted from them for each time.
     */
    float frequency_penalty;
    /**
     * Leave it 0.
     */
    uint32_t reserved;
    /**
     * Only tokens whose surprise is near the expected one and that together have this probability are drawn from (locally
     * typical sampling); 1 (the default) for all.
     */
    double typical_p;
} CandlePhiGenerationOptions;

/**
 * A piece of an answer, as a callback gets it: good until it returns. Newer versions may have more fields at the end.
 */
typedef struct {
    /**
     * New text, whole characters of UTF-8. Empty while a character is not complete, or a stop text may have begun.
     */
    CandlePhiStr text;
    /**
     * The token that it came with.
     */
    uint32_t token;
    /**
     * 0 for text that was held back until the end, which comes with none.
     */
    int32_t has_token;
} CandlePhiChunk;

/**
 * Called with each chunk, on the thread that called the function. 0 goes on, and anything else cancels: it isn't called
 * again, and the generation ends with CANDLE_PHI_FINISH_REASON_CANCELLED.
 *
 * The session is busy meanwhile; other sessions and all else may be used. It must return: no exception and no longjmp may
 * leave it.
 */
typedef int32_t (*CandlePhiOnChunk)(const CandlePhiChunk *chunk, void *user_data);

/**
 * One message of a conversation.
 */
typedef struct {
    /**
     * Who says it: a CandlePhiRole.
     */
    int32_t role;
    /**
     * What is said. Control tokens in it are text as any other.
     */
    CandlePhiStr content;
} CandlePhiMessage;

/**
 * Facts about a completion. The text is the completion's, and good for as long as it.
 */
typedef struct {
    /**
     * Why it ended: a CandlePhiFinishReason.
     */
    int32_t finish_reason;
    /**
     * Not 0 where it ended at a token: an end token of the model, or one of `stop_token_ids`.
     */
    int32_t has_stop_token;
    /**
     * That token.
     */
    uint32_t stop_token;
    /**
     * Always 0.
     */
    uint32_t reserved;
    /**
     * The stop text that it ended at; empty where it did not.
     */
    CandlePhiStr stop_text;
    /**
     * The seed that was given or drawn: with it the same call gives the same tokens again.
     */
    uint64_t seed;
    /**
     * Tokens of the prompt, what was said before included.
     */
    uint64_t prompt_tokens;
    /**
     * Tokens that were generated.
     */
    uint64_t completion_tokens;
    /**
     * Tokens of the prompt that were computed before, and not again.
     */
    uint64_t cached_tokens;
    /**
     * Time for the prompt.
     */
    double prefill_s;
    /**
     * Time to the first token.
     */
    double time_to_first_token_s;
    /**
     * Time for the tokens behind the first.
     */
    double decode_s;
} CandlePhiCompletionInfo;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, such as "0.1.0". It ends with NUL and is never freed.
 *
 * Threads: any, at any time.
 */
const char *candle_phi_version(void);

/**
 * How this thread's last call that returned a status ended: the same status.
 *
 * Threads: any; each has its own.
 */
CandlePhiStatus candle_phi_last_error(void);

/**
 * What went wrong in this thread's last call that returned a status, in words: what was expected, what was found, and
 * what to do. Empty where nothing did. UTF-8 that ends with NUL and is good until the thread's next such call; where
 * `len` is not NULL, the number of bytes in front of the NUL is written there.
 *
 * Threads: any; each has its own.
 */
const char *candle_phi_last_error_message(size_t *len);

/**
 * The option or argument that this thread's last call failed about, such as "top_p": the name of a field or of a parameter.
 * Empty where it is about none, or did not fail. Otherwise as candle_phi_last_error_message.
 *
 * Threads: any; each has its own.
 */
const char *candle_phi_last_error_option(size_t *len);

/**
 * A text that ends with NUL, for the functions that take one with its length. Empty for NULL. Nothing is copied.
 *
 * Threads: any, at any time.
 */
CandlePhiStr candle_phi_str(const char *text);

/**
 * Frees a text and makes it empty, so that the same struct may be freed again. NULL and an empty one are left as they are.
 *
 * Threads: any, where no other uses the struct.
 */
void candle_phi_text_free(CandlePhiText *text);

/**
 * Frees token ids and makes the struct empty, so that it may be freed again. NULL and an empty one are left as they are.
 *
 * Threads: any, where no other uses the struct.
 */
void candle_phi_tokens_free(CandlePhiTokens *tokens);

/**
 * A token that is not cancelled, to be freed with candle_phi_cancel_token_free.
 *
 * Threads: any, at any time.
 */
CandlePhiCancelToken *candle_phi_cancel_token_new(void);

/**
 * Asks the calls that have the token to end: they look for it at least between any two layers. Returns at once. NULL is
 * left as it is.
 *
 * Threads: any, at any time, also while a call has the token, and within a callback.
 */
void candle_phi_cancel_token_cancel(CandlePhiCancelToken *token);

/**
 * Makes the token good for the next call. NULL is left as it is.
 *
 * Threads: any, at any time; a call that has the token and did not see that it was cancelled goes on.
 */
void candle_phi_cancel_token_reset(CandlePhiCancelToken *token);

/**
 * Frees the token; NULL is left as it is. A call that has it goes on, and can no longer be cancelled by it.
 *
 * Threads: any, where no other is about to use the token, or in one of its functions.
 */
void candle_phi_cancel_token_free(CandlePhiCancelToken *token);

/**
 * Fills the options with their defaults. `size` is sizeof(CandlePhiLoadOptions). NULL is left as it is.
 *
 * Threads: any, where no other uses the struct.
 */
void candle_phi_load_options_init(CandlePhiLoadOptions *options,
                                  size_t size);

/**
 * Loads a model from a GGUF file into `model`, to be freed with candle_phi_model_free. A failure leaves NULL there.
 * `options` may be NULL. Takes milliseconds to seconds: not for the thread that draws.
 *
 * Threads: any, at any time.
 */
CandlePhiStatus candle_phi_model_load(CandlePhiStr path,
                                      const CandlePhiLoadOptions *options,
                                      CandlePhiModel **model);

/**
 * Loads a model from the bytes of a GGUF file, which are copied and may be freed afterwards. For files that are too large
 * to have twice in memory candle_phi_model_load is better: it reads them in place. Otherwise the same.
 *
 * Threads: any, at any time, where nobody writes to the bytes.
 */
CandlePhiStatus candle_phi_model_load_bytes(const uint8_t *bytes,
                                            size_t len,
                                            const CandlePhiLoadOptions *options,
                                            CandlePhiModel **model);

/**
 * Loads the toy model that is a part of the library, to try an app without a download. It knows haiku, greetings and
 * counting. CANDLE_PHI_STATUS_UNSUPPORTED_MODEL where the library was built without it. Otherwise the same.
 *
 * Threads: any, at any time.
 */
CandlePhiStatus candle_phi_model_load_demo(const CandlePhiLoadOptions *options,
                                           CandlePhiModel **model);

/**
 * Writes facts about the model to `info`. `size` is sizeof(CandlePhiModelInfo).
 *
 * Threads: any, at any time.
 */
CandlePhiStatus candle_phi_model_info(const CandlePhiModel *model,
                                      CandlePhiModelInfo *info,
                                      size_t size);

/**
 * Frees the model; NULL is left as it is. Its sessions keep what they need of it, and go on.
 *
 * Threads: any, where no other is about to use the model, or in one of its functions.
 */
void candle_phi_model_free(CandlePhiModel *model);

/**
 * The token ids of a text, to be freed with candle_phi_tokens_free. With `add_bos` they begin with the token for the
 * beginning of a text, if the vocabulary has it. With `parse_special` the texts of control tokens become these
 * tokens; without it they are text as any other.
 *
 * Threads: any, at any time.
 */
CandlePhiStatus candle_phi_tokenize(const CandlePhiModel *model,
                                    CandlePhiStr text,
                                    int32_t add_bos,
                                    int32_t parse_special,
                                    CandlePhiTokens *tokens);

/**
 * The text of token ids, to be freed with candle_phi_text_free. With `skip_special` control tokens are left out. Bytes
 * that are no UTF-8 become U+FFFD.
 *
 * Threads: any, at any time.
 */
CandlePhiStatus candle_phi_detokenize(const CandlePhiModel *model,
                                      const uint32_t *tokens,
                                      size_t n_tokens,
                                      int32_t skip_special,
                                      CandlePhiText *text);

/**
 * Fills the options with their defaults. `size` is sizeof(CandlePhiSessionOptions). NULL is left as it is.
 *
 * Threads: any, where no other uses the struct.
 */
void candle_phi_session_options_init(CandlePhiSessionOptions *options,
                                     size_t size);

/**
 * Begins an empty conversation in `session`, to be freed with candle_phi_session_free. A failure leaves NULL there.
 * `options` may be NULL. The model may be freed before the session.
 *
 * Threads: any, at any time.
 */
CandlePhiStatus candle_phi_session_new(const CandlePhiModel *model,
                                       const CandlePhiSessionOptions *options,
                                       CandlePhiSession **session);

/**
 * A second conversation in `forked` that begins as `session` is now, and goes its own way. Nothing is computed again, and
 * on a CPU no memory is copied. A failure leaves NULL there.
 *
 * Threads: any, at any time; CANDLE_PHI_STATUS_SESSION_BUSY while a call uses `session`.
 */
CandlePhiStatus candle_phi_session_fork(const CandlePhiSession *session,
                                        CandlePhiSession **forked);

/**
 * Forgets the conversation and gives its memory back, but for that of 64 tokens at most, which the next one takes.
 *
 * Threads: any, at any time; CANDLE_PHI_STATUS_SESSION_BUSY while another call uses the session.
 */
CandlePhiStatus candle_phi_session_reset(CandlePhiSession *session);

/**
 * Takes the last `turns` turns of the conversation back: each is what one candle_phi_chat said, and its answer. What is
 * left is not computed again.
 *
 * Threads: any, at any time; CANDLE_PHI_STATUS_SESSION_BUSY while another call uses the session.
 */
CandlePhiStatus candle_phi_session_rewind(CandlePhiSession *session,
                                          size_t turns);

/**
 * Frees the session; NULL is left as it is. A call that is using it goes on to its end: cancel it where it shall not.
 *
 * Threads: any, also within a callback of the session, where no other is about to use the session.
 */
void candle_phi_session_free(CandlePhiSession *session);

/**
 * Fills the options with their defaults. `size` is sizeof(CandlePhiGenerationOptions). NULL is left as it is.
 *
 * Threads: any, where no other uses the struct.
 */
void candle_phi_generation_options_init(CandlePhiGenerationOptions *options,
                                        size_t size);

/**
 * Completes a raw prompt, in which control tokens count, and returns at the end. The conversation stays as it is.
 *
 * `options`, `on_chunk` and `completion` may be NULL. The completion is freed with candle_phi_completion_free; a failure
 * leaves NULL there. A generation that is cancelled, or whose time is over, is no failure: the completion has what there is.
 *
 * Threads: any, at any time; CANDLE_PHI_STATUS_SESSION_BUSY while another call uses the session. Sessions of one model
 * generate side by side.
 */
CandlePhiStatus candle_phi_generate(CandlePhiSession *session,
                                    CandlePhiStr prompt,
                                    const CandlePhiGenerationOptions *options,
                                    CandlePhiOnChunk on_chunk,
                                    void *user_data,
                                    CandlePhiCompletion **completion);

/**
 * The same for a prompt of token ids, which are taken as they are.
 *
 * Threads: as candle_phi_generate.
 */
CandlePhiStatus candle_phi_generate_tokens(CandlePhiSession *session,
                                           const uint32_t *tokens,
                                           size_t n_tokens,
                                           const CandlePhiGenerationOptions *options,
                                           CandlePhiOnChunk on_chunk,
                                           void *user_data,
                                           CandlePhiCompletion **completion);

/**
 * Says `messages` in the session's conversation and generates the answer, which becomes a part of it when it ends by itself
 * or at its length; one that was cancelled, or whose time was over, leaves no trace. What was said before is not computed
 * again. The first call may bring a whole conversation: a system's message, earlier questions and their answers.
 *
 * The rest is as for candle_phi_generate.
 *
 * Threads: as candle_phi_generate.
 */
CandlePhiStatus candle_phi_chat(CandlePhiSession *session,
                                const CandlePhiMessage *messages,
                                size_t n_messages,
                                const CandlePhiGenerationOptions *options,
                                CandlePhiOnChunk on_chunk,
                                void *user_data,
                                CandlePhiCompletion **completion);

/**
 * The text of a completion; empty for NULL. It is the completion's, and good for as long as it.
 *
 * Threads: any, at any time.
 */
CandlePhiStr candle_phi_completion_text(const CandlePhiCompletion *completion);

/**
 * The generated token ids, and how many there are in `n_tokens`, unless that is NULL. NULL where there are none. They are
 * the completion's, and good for as long as it.
 *
 * Threads: any, at any time.
 */
const uint32_t *candle_phi_completion_tokens(const CandlePhiCompletion *completion,
                                             size_t *n_tokens);

/**
 * Writes facts about a completion to `info`. `size` is sizeof(CandlePhiCompletionInfo).
 *
 * Threads: any, at any time.
 */
CandlePhiStatus candle_phi_completion_info(const CandlePhiCompletion *completion,
                                           CandlePhiCompletionInfo *info,
                                           size_t size);

/**
 * Frees the completion; NULL is left as it is.
 *
 * Threads: any, where no other uses the completion.
 */
void candle_phi_completion_free(CandlePhiCompletion *completion);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CANDLE_PHI_H */
