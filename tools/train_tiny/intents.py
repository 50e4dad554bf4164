"""The closed set of questions: what a user may say, in training and in the evaluation, and what the agent answers."""

from __future__ import annotations

from dataclasses import dataclass

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Intent:
    """One thing to ask. `held_out` phrasings are never trained on; `question` says whether the chatty style and the
    service style add their phrase to the answer."""

    phrasings: tuple[str, ...]
    held_out: tuple[str, ...]
    full: str
    brief: str
    question: bool = True


def _fixed(said: str, held_out: str, full: str, brief: str, question: bool = True) -> Intent:
    return Intent(tuple(said.split("|")), tuple(held_out.split("|")), full, brief, question)


_FIXED = (
    _fixed("hello|hello there|hi there|hey, hello|hi|hello my friend", "hey there|hello hello",
           "Hello! How can I help you?", "Hello!", False),
    _fixed("good morning|good morning to you|a good morning|hello, good morning", "very good morning to you",
           "Good morning to you!", "Good morning!", False),
    _fixed("good evening|good evening to you|a good evening|hello, good evening", "a very good evening",
           "Good evening to you!", "Good evening!", False),
    _fixed("how are you|how are you today|how are you doing|how do you feel|are you well", "how do you feel today",
           "I am very well, thank you.", "Very well!", False),
    _fixed("thank you|thank you very much|thanks a lot|thanks|many thanks", "thank you so much",
           "You are very welcome!", "Welcome!", False),
    _fixed("goodbye|goodbye for now|bye bye|bye|see you later", "bye for now",
           "Goodbye! Have a nice day!", "Goodbye!", False),
    _fixed("good night|good night to you|have a good night|sleep well", "a good night to you",
           "Good night, sleep well!", "Good night!", False),
    _fixed("what is your name|who are you|tell me your name|what are you called|say your name",
           "can you tell me your name", "My name is Alex.", "Alex."),
    _fixed("how old are you|what is your age|tell me your age|when were you born", "say how old you are",
           "I was born only yesterday.", "One day."),
    _fixed("where are you from|where do you live|where is your home|where do you come from", "where are you at home",
           "I live inside this computer.", "In here."),
    _fixed("are you a robot|are you human|are you a machine|are you a person|are you real", "are you a real person",
           "Yes, I am a computer voice.", "A computer."),
    _fixed("what can you do|how can you help me|can you help me|what do you know", "what can you do for me",
           "I can answer simple questions.", "Simple questions."),
    _fixed("when do you open|when does the shop open|what time do you open|tell me when you open",
           "what time does the shop open", "We open at nine in the morning.", "At nine."),
    _fixed("when do you close|when does the shop close|what time do you close|tell me when you close",
           "what time does the shop close", "We close at six in the evening.", "At six."),
    _fixed("are you open on sunday|do you open on sundays|is the shop open on sunday|are you open sundays",
           "does the shop open on sunday", "No, on Sunday we are closed.", "No."),
    _fixed("are you open on saturday|do you open on saturdays|is the shop open on saturday|are you open saturdays",
           "does the shop open on saturday", "Yes, on Saturday until noon.", "Until noon."),
    _fixed("where is the shop|what is your address|where can I find you|tell me your address|where is your shop",
           "tell me where the shop is", "We are at ten Garden Street.", "Garden Street."),
    _fixed("do you sell bread|can I buy bread|do you have bread|is there bread", "can I buy some bread",
           "Yes, our bread is fresh every day.", "Yes."),
    _fixed("what is the price of bread|how much is the bread|how much is a loaf of bread|what does bread cost",
           "how much does the bread cost", "A loaf of bread is three dollars.", "Three dollars."),
    _fixed("how much is the coffee|what is the price of coffee|how much is a cup of coffee|what does coffee cost",
           "how much does the coffee cost", "A cup of coffee is two dollars.", "Two dollars."),
    *(_fixed(f"what color is {it}|which color is {it}|what is the color of {it}|which color has {it}",
             f"tell me the color of {it}", f"{what.capitalize()} {be} {color}.", f"{color.capitalize()}.")
      for it, what, be, color in (
          ("the sky", "the sky", "is", "blue"), ("the grass", "the grass", "is", "green"),
          ("the snow", "the snow", "is", "white"), ("a banana", "a banana", "is", "yellow"),
          ("blood", "blood", "is", "red"))),
    *(_fixed(f"what is the capital of {land}|tell me the capital of {land}|which city is the capital of {land}"
             f"|name the capital of {land}", f"what is the capital city of {land}",
             f"The capital of {land.capitalize()} is {city}.", f"{city}.")
      for land, city in (("france", "Paris"), ("italy", "Rome"), ("england", "London"), ("germany", "Berlin"),
                         ("japan", "Tokyo"))),
    _fixed("how many days are in a week|how many days does a week have|how many days has a week"
           "|how many days are there in a week", "tell me how many days are in a week",
           "A week has seven days.", "Seven."),
    _fixed("how many months are in a year|how many months does a year have|how many months has a year"
           "|how many months are there in a year", "tell me how many months are in a year",
           "A year has twelve months.", "Twelve."),
    _fixed("how many legs does a spider have|how many legs has a spider|how many legs are on a spider"
           "|how many legs do spiders have", "tell me how many legs a spider has",
           "A spider has eight legs.", "Eight."),
    _fixed("what does a dog say|which sound does a dog make|what do dogs say|how does a dog go",
           "what sound does a dog make", "A dog says woof woof.", "Woof!"),
    _fixed("what does a cat say|which sound does a cat make|what do cats say|how does a cat go",
           "what sound does a cat make", "A cat says meow.", "Meow!"),
    *(_fixed(f"what is the opposite of {word}|tell me the opposite of {word}|the opposite of {word}"
             f"|which word is the opposite of {word}", f"name the opposite of {word}",
             f"The opposite of {word} is {other}.", f"{other.capitalize()}.")
      for word, other in (("hot", "cold"), ("big", "small"))),
    _fixed("tell me a joke|do you know a joke|say a joke|I want to hear a joke", "can you tell me a joke",
           "Sorry, all my jokes are bad.", "No joke.", False),
    _fixed("do you like music|what music do you like|do you love music|which music do you like",
           "tell me what music you like", "Yes, I love piano music.", "Piano."),
    _fixed("what is your favorite color|which color do you like|tell me your favorite color|what color do you like",
           "which is your favorite color", "My favorite color is blue.", "Blue."),
    _fixed("what is the weather like|how is the weather today|how is the weather|tell me the weather",
           "what is the weather like today", "The sun is shining today.", "Sunny."),
    _fixed("can you count to three|please count to three|count to three|count up to three",
           "can you please count to three", "One, two, three!", "One, two, three!", False),
)  # fmt: skip


def _sum(a: int, b: int) -> Intent:
    x, y, n = NUMBERS[a], NUMBERS[b], NUMBERS[a + b]
    said = (f"what is {x} plus {y}", f"how much is {x} plus {y}", f"{x} plus {y}", f"tell me {x} plus {y}",
            f"add {x} and {y}")  # fmt: skip
    return Intent(said, (f"what makes {x} plus {y}",), f"That makes {n}.", f"{n.capitalize()}.")


SUMS = tuple(_sum(a, b) for a in range(1, 6) for b in range(1, 6))
INTENTS = _FIXED + SUMS
